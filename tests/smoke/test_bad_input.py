"""Mistakes of a user, through the console script: exit code 1, one message saying what to do, nothing half-written."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from datamodules.pen import draw_pen, load_pen_config
from pl_distill.cli import main

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """One clip for each part of the split, eight small frames each."""
    root = tmp_path_factory.mktemp("drawn") / "clips"
    small = replace(load_pen_config("day"), width=160, height=90)
    for day in ("2026_01_01", "2026_01_21", "2026_01_26"):
        draw_pen(root, small, days=[day], clips_per_day=1, frames_per_clip=8, seed=0)
    return root


@pytest.fixture
def clips(drawn, tmp_path):
    return Path(shutil.copytree(drawn, tmp_path / "clips"))


@pytest.fixture
def refuse(capfd):
    """Run the console script and return its message; it must be the only one, and no traceback."""

    def run(*words: str | Path) -> str:
        code = main([str(word) for word in words])
        message = capfd.readouterr().err
        assert code == 1, message
        assert "Traceback" not in message
        last = message.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert ", expected " in last
        return last

    return run


def edit(clips: Path, change) -> None:
    path = clips / "2026_01_01" / "000000" / "output.json"
    content = json.loads(path.read_text())
    change(content["objects"][0]["frames"])
    path.write_text(json.dumps(content))


def test_a_missing_video(clips, refuse, tmp_path):
    (clips / "2026_01_01" / "000000" / "color.mp4").unlink()
    message = refuse("data", "shards", "--clips", clips, "--split", "pen", "--out", tmp_path / "shards")
    assert "2026_01_01/000000/color.mp4" in message
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("kept", [0.5, 0.0])
def test_a_truncated_video(clips, refuse, tmp_path, kept):
    video = clips / "2026_01_01" / "000000" / "color.mp4"
    data = video.read_bytes()
    video.write_bytes(data[: int(len(data) * kept)])
    message = refuse("data", "shards", "--clips", clips, "--split", "pen", "--out", tmp_path / "shards")
    assert "2026_01_01/000000/color.mp4" in message
    assert not list(tmp_path.glob("shards/**/*.tar"))


def test_an_annotation_that_is_not_json(clips, refuse, tmp_path):
    (clips / "2026_01_01" / "000000" / "output.json").write_text('{"objects": [')
    message = refuse("data", "shards", "--clips", clips, "--split", "pen", "--out", tmp_path / "shards")
    assert "output.json: is not JSON" in message


def test_a_frame_beyond_the_video(clips, refuse, tmp_path):
    edit(clips, lambda frames: frames[-1].update(frameNumber=8))
    message = refuse("data", "shards", "--clips", clips, "--split", "pen", "--out", tmp_path / "shards")
    assert "frameNumber 8" in message
    assert "below 8, the length of the video" in message


def test_a_box_of_negative_size(clips, refuse, tmp_path):
    edit(clips, lambda frames: frames[0]["bbox"].update(width=-4))
    message = refuse("data", "shards", "--clips", clips, "--split", "pen", "--out", tmp_path / "shards")
    assert "output.json" in message
    assert "-4" in message


def test_an_unknown_label(clips, refuse, tmp_path):
    edit(clips, lambda frames: frames[0].update(behaviour="flying"))
    message = refuse("data", "shards", "--clips", clips, "--split", "pen", "--out", tmp_path / "shards")
    assert "'flying'" in message
    assert "sleep" in message


def test_a_day_that_the_split_does_not_know(clips, refuse, tmp_path):
    message = refuse("data", "shards", "--clips", clips, "--split", "edinburgh", "--out", tmp_path / "shards")
    assert "2026_01_01" in message


@pytest.fixture(scope="module")
def shards(drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "shards"
    assert main(["data", "shards", "--clips", str(drawn), "--split", "pen", "--out", str(folder)]) == 0
    return folder


def test_a_manifest_that_does_not_match_its_shards(shards, refuse, tmp_path):
    damaged = Path(shutil.copytree(shards, tmp_path / "damaged"))
    tar = damaged / "train" / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(bytes(data))
    assert "train-000000.tar" in refuse("data", "verify", "--shards", damaged)
    tar.unlink()
    assert "train-000000.tar" in refuse("data", "verify", "--shards", damaged)


def test_a_config_key_with_a_typo(shards, refuse, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("model:\n  class_path: pl_distill.modules.teacher_cache.TeacherCacheModule\n  init_arg: {}\n")
    message = refuse("predict", "--config", "cache/pen.yaml", "--config", recipe, "--data.shards", shards)
    assert "init_arg" in message


def test_a_checkpoint_of_another_architecture(shards, refuse, tmp_path):
    from pl_distill.models.sam3 import write_random_sam3
    from pl_distill.models.student_io import DESCRIPTION
    from pl_distill.models.tinyvit_fpn import TinyViTFPN

    teacher = write_random_sam3("tiny", tmp_path / "teacher", seed=0)
    student = tmp_path / "student"
    TinyViTFPN(out_channels=32, grid=8, body="tiny_vit_5m_224", body_size=64, fpn_channels=32).save_pretrained(
        student, str(teacher)
    )
    description = json.loads((student / DESCRIPTION).read_text())
    description["init_args"]["fpn_channels"] = 64
    (student / DESCRIPTION).write_text(json.dumps(description))
    message = refuse("evaluate", "--model", student, "--data", shards, "--out", tmp_path / "scores")
    assert "other shapes" in message
    assert not (tmp_path / "scores").exists()


def test_an_unknown_option_and_an_unknown_verb(refuse, tmp_path):
    assert "--otu" in refuse("demo", "--otu", tmp_path)
    assert "knows no verb 'evalute'" in refuse("evalute")


def test_the_exit_code_of_the_script_itself_is_1_and_debug_shows_the_traceback(tmp_path):
    command = [sys.executable, "-m", "pl_distill.cli", "data", "verify", "--shards", str(tmp_path / "nothing")]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert plain.returncode == 1
    assert plain.stderr.startswith("error: ")
    assert plain.stderr.count("\n") == 1
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True, timeout=120)
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr


def test_a_demo_of_wrong_numbers_leaves_nothing_that_stands_in_its_way(refuse, tmp_path):
    out = tmp_path / "demo"
    assert "nihgt" in refuse("demo", "--out", out, "--domain", "nihgt")
    for option in ("frames", "train_frames", "max_steps"):
        assert f"--{option}: is 0, expected 1 or more" in refuse("demo", "--out", out, f"--{option}=0")
    assert not out.exists()


def test_numbers_out_of_range_of_other_verbs(clips, refuse, tmp_path):
    out = tmp_path / "out"
    for value in (0, -1):
        said = refuse("embed", "--clips", clips, "--out", out, "--max_frames", value)
        assert f"--max_frames: is {value}, expected 1 or more" in said
    said = refuse("record", "simulate", "--out", out, "--days", "3", "--lead_days", "500")
    assert "--lead_days: is 500, expected 0 to 2" in said
    assert "--cases: is 9 of 3 animals" in refuse("record", "simulate", "--out", out, "--animals", "3", "--cases", "9")
    for option, least in (("animals", 1), ("days", 1), ("seed", 0)):
        said = refuse("record", "simulate", "--out", out, f"--{option}", least - 1)
        assert f"--{option}: is {least - 1}, expected {least} or more" in said
    said = refuse("record", "query", "--record", out, "--sql", "SELECT 1", "--out", tmp_path / "a.xlsx")
    assert "a.xlsx: ends in neither, expected .csv or .parquet" in said
    assert "--frames: is 0, expected at least 1" in refuse("export", "--model", "m", "--out", out, "--frames", 0)
    said = refuse("export", "--what", "embedder", "--model", "m", "--out", out, "--teacher", "pen_teacher")
    assert "--teacher: is given with --what embedder" in said
    said = refuse("track", clips, "--model", "pen_student", "--out", out, "--patience_s", "-3")
    assert "--patience_s: is -3.0, expected 0 or more seconds" in said
    assert not out.exists()
