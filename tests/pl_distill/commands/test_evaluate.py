"""`pl-distill evaluate` from the command line: what is printed, and how mistakes are answered."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from datamodules.clip import Annotation, Clip
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.cli import main
from pl_distill.models.sam3 import write_random_sam3


class Noise:
    """Three grey pictures; a frame source."""

    def __iter__(self):
        for level in (60, 90, 120):
            yield np.full((48, 64, 3), level, np.uint8)

    def fingerprint(self) -> str:
        return "three grey pictures"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> tuple[str, str]:
    """A SAM 3 with random weights, and shards with one clip."""
    root = tmp_path_factory.mktemp("inputs")
    box = Annotation(("a",), np.array([(5, 5, 20, 20)], np.float32), (None,), np.array([True]))
    clip = Clip("2026_01_26/000000", "2026_01_26", 6.0, 64, 48, 3, Noise(), dict.fromkeys(range(3), box))
    write_shards([clip], load_split("pen"), root / "shards")
    return str(write_random_sam3("tiny", root / "teacher", seed=0)), str(root / "shards")


def test_the_table_and_where_to_look_next_are_printed(inputs, tmp_path, capsys):
    model, shards = inputs
    out = tmp_path / "out"
    code = main(["evaluate", "--model", model, "--data", shards, "--out", str(out), "--policy.mode", "bounded"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    content = json.loads((out / "results.json").read_text())
    assert content["settings"]["policy"]["mode"] == "bounded"
    assert re.search(rf"^MOTA % +{content['overall']['mota']:.2f}$", printed.out, re.MULTILINE)
    named = [Path(word) for word in re.findall(rf"{re.escape(str(out))}\S*", printed.out)]
    assert len(named) >= 4
    assert all(path.exists() for path in named)
    assert "100%" in printed.err  # the bar came to its end
    assert f"next      pl-distill report --results {out / 'results.json'}" in printed.out

    assert main(["report", "--results", str(out)]) == 0
    assert str(out / "report.html") in capsys.readouterr().out


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for option in ("--model", "--data", "--out", "--teacher", "--prompt", "--split", "--max_frames", "--policy.mode"):
        assert option in text


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--prompt", "cow"], "one of the stored words: feeder, pig, toy"),
        (["--split", "val"], "'val' has no clips"),
        (["--split", "dev"], "split"),
        (["--max_frames", "0"], "max_frames: is 0"),
        (["--policy.mode", "lazy"], "mode"),
        (["--modle", "x"], "modle"),
        (["--data", "nowhere"], "nowhere: holds no manifest.json"),
        (["--model", "nowhere"], "nowhere: is not there, expected a .ckpt of pl-distill fit"),
    ],
)
def test_mistakes_are_answered_without_a_traceback_and_write_nothing(inputs, tmp_path, capsys, options, complaint):
    words = {"--model": inputs[0], "--data": inputs[1], "--out": str(tmp_path / "out")}
    words |= dict(zip(options[::2], options[1::2], strict=True))
    assert main(["evaluate", *(word for pair in words.items() for word in pair)]) == 1
    message = capsys.readouterr().err
    assert complaint in message
    assert message.startswith("error: ")
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()
