"""`pl-distill window` from the command line, on two clips and a SAM 3 with random weights."""

import json

import numpy as np
import pytest

from datamodules.clip import Annotation, Clip
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.cli import main
from pl_distill.evaluation.tables import read_report_tables
from pl_distill.evaluation.window import growth, window_policies
from pl_distill.models.sam3 import write_random_sam3
from pl_distill.streaming import PruningPolicy


class Noise:
    """Eight noisy pictures; a frame source."""

    def __iter__(self):
        rng = np.random.default_rng(0)
        for _ in range(8):
            yield rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)

    def fingerprint(self) -> str:
        return "eight noisy pictures"


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("window")
    box = Annotation(("a",), np.array([(5, 5, 20, 20)], np.float32), (None,), np.array([True]))
    clips = [
        Clip(f"{day}/000000", day, 6.0, 64, 48, 8, Noise(), dict.fromkeys(range(8), box))
        for day in ("2026_01_26", "2026_01_27")
    ]
    write_shards(clips, load_split("pen"), root / "shards")
    model = write_random_sam3("tiny", root / "model", seed=0)
    return ["window", "--model", str(model), "--data", str(root / "shards"), "--policy.retirement=null"]


def test_one_command_gives_scores_and_bytes_for_each_window(words, tmp_path, capsys):
    assert main([*words, "--out", str(tmp_path), "--windows=[2]", "--unpruned=true"]) == 0
    rows = {row["window"]: row for row in json.loads((tmp_path / "window.json").read_text())["rows"]}
    assert list(rows) == ["none", "exact", "bounded", "2"]
    kept = {arm: row["session_bytes"] for arm, row in rows.items()}
    assert kept["2"] < kept["bounded"] <= kept["exact"] < kept["none"]
    assert rows["none"]["growth_bytes"] > 100_000
    assert (rows["none"]["mota"], rows["none"]["id_switches"]) == (rows["exact"]["mota"], rows["exact"]["id_switches"])
    assert rows["exact"]["differences"] == []
    assert {item["metric"] for item in rows["2"]["differences"]} == {"mota", "idf1"}
    printed = capsys.readouterr().out
    assert all(f"| {arm} | model |" in printed for arm in rows)
    assert "no difference is called established" in " ".join(printed.split())
    (table,) = read_report_tables([tmp_path])
    assert [row[0] for row in table.rows] == list(rows)


@pytest.mark.parametrize("option", ["--windows=[]", "--windows=[0]", "--jobs=0"])
def test_what_makes_no_sense_is_refused(words, tmp_path, capsys, option):
    assert main([*words, "--out", str(tmp_path / "out"), option]) == 1
    assert option.split("=")[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_growth_is_that_of_the_second_half():
    assert growth([5, 90, 10, 10, 10, 10, 10, 10]) == 0
    assert growth([0, 1, 2, 3, 4, 5, 6, 7]) == 1
    assert growth([1, 2, 3]) == 0  # too short to tell


def test_arms_differ_in_nothing_but_their_window():
    arms = window_policies(PruningPolicy(max_objects=3), [2, 6, 2], unpruned=False)
    assert {name: (arm.mode, arm.window_frames) for name, arm in arms.items()} == {
        "exact": ("exact", None),
        "bounded": ("bounded", None),
        "6": ("bounded", 6),
        "2": ("bounded", 2),
    }
    assert {arm.max_objects for arm in arms.values()} == {3}
