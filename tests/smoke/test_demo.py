"""The demo through its console script: killed, resumed, run again."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from pl_distill.cli import main
from pl_distill.evaluation.results import read_results
from tests.python_process import python_process

pytestmark = pytest.mark.smoke

SIZE = ["--train_clips=1", "--train_frames=10", "--test_clips=1", "--frames=10", "--max_steps=6"]


def wait_for(path: Path, process: subprocess.Popen[bytes], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "the demo ended before it could be killed"
        assert time.monotonic() < end, f"{path} did not appear in {seconds} s"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A demo that was killed while it cached the teacher's features, and then ran to its end."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    words = ["demo", "--out", str(out), *SIZE]
    with python_process("-m", "pl_distill.cli", *words, stdout=subprocess.DEVNULL) as process:
        wait_for(out / "shards" / "manifest.json", process, 240)
    before = {path: path.stat().st_mtime_ns for path in out.glob("clips/*/*/*")}
    assert before
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("clips/*/*/*")} == before
    return out, words


def test_a_killed_demo_goes_on_and_ends_with_scores_and_a_report(finished):
    out, _ = finished
    results = read_results(out / "results.json")
    assert set(results.models) == {"teacher", "student"}
    assert results.student_vs_teacher is not None
    assert set(results.steps) == {"draw", "shards", "features", "student", "evaluate", "budget"}
    assert results.seconds == pytest.approx(sum(results.steps.values()), abs=0.1)
    assert results.models["teacher"].overall.mota > 50  # the shipped one sees
    for model in results.models.values():
        for clip in model.clips.values():
            assert clip.replay is not None
            assert clip.replay.frames == 10
            assert (out / clip.replay.tracks).is_file()
            assert clip.replay.video is not None
            assert (out / clip.replay.video).is_file()
    assert list(out.glob("**/events.out.tfevents.*"))
    assert "Budget of the device" in (out / "report.html").read_text()


def test_every_training_and_validation_clip_shows_another_herd_than_the_test_clips(finished):
    out, _ = finished
    scenes = [json.loads(path.read_text()) for path in sorted(out.glob("clips/*/*/scene.json"))]
    assert [scene["seed"] for scene in scenes] == [0, 1, 1_000_000]


def test_a_second_run_reuses_everything_and_says_where_to_look(finished, capsys):
    out, words = finished
    before = (out / "results.json").read_bytes()
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.count(": reused, ") == 7
    assert f"report    {out / 'report.html'}" in printed
    assert (out / "results.json").read_bytes() == before


def test_other_settings_do_not_touch_a_finished_demo(finished, capsys):
    _, words = finished
    assert main([*words, "--seed=1"]) == 1
    assert "seed 0, expected seed 1 as asked for now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [("--train_clips=21", "1 to 20"), ("--test_clips=0", "1 to 6"), ("--seed=1000000", "kept for evaluation")],
)
def test_sizes_that_the_split_cannot_hold_are_refused(tmp_path, capsys, option, message):
    assert main(["demo", "--out", str(tmp_path / "demo"), option]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
