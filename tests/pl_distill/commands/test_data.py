"""`pl-distill data`, by its command line: a pen becomes shards; what is wrong gets one line and exit code 1."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest

from datamodules.pen import EVALUATION_SEED
from datamodules.shards import ShardManifest, read_shard_clips
from datamodules.splits import PARTS, load_split
from pl_distill.cli import main
from pl_distill.commands.data import expand_days
from pl_distill.errors import ConfigError

SMALL = "domain: small\nwidth: 96\nheight: 64\nnum_animals: 2\n"


@pytest.fixture(scope="module")
def pen(tmp_path_factory):
    """A small pen of three days, drawn by the command."""
    folder = tmp_path_factory.mktemp("pen")
    (folder / "small.yaml").write_text(SMALL)
    assert main(draw(folder)) == 0
    return folder


def draw(folder, days="2026_01_01..2026_01_02,2026_01_26", **options):
    words = {"domain": folder / "small.yaml", "frames_per_clip": 3, **options}
    return ["data", "pen", f"--out={folder / 'clips'}", f"--days={days}", *(f"--{k}={v}" for k, v in words.items())]


def shard(pen, out, **options):
    words = {"split": "pen", "samples_per_shard": 4, **options}
    return ["data", "shards", f"--clips={pen / 'clips'}", f"--out={out}", *(f"--{k}={v}" for k, v in words.items())]


def refused(capsys, words, *texts):
    """Assert exit code 1 and one line of error with these texts."""
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    *before, error = error.splitlines()
    assert error.startswith("error: ")
    assert all("frame/s" in line or "B/s" in line for line in before if line)  # at most a bar that stopped
    for text in texts:
        assert str(text) in error


class TestPen:
    def test_days_and_ranges_are_drawn(self, pen):
        clips = sorted(path.parent.relative_to(pen / "clips").as_posix() for path in pen.rglob("color.mp4"))
        assert clips == ["2026_01_01/000000", "2026_01_02/000000", "2026_01_26/000000"]

    def test_test_days_have_seeds_that_training_never_sees(self, pen):
        seeds = {path.parts[-3]: json.loads(path.read_text())["seed"] for path in pen.rglob("scene.json")}
        assert seeds == {"2026_01_01": 0, "2026_01_02": 0, "2026_01_26": EVALUATION_SEED}

    def test_days_take_turns_between_herds(self, pen, tmp_path):
        (tmp_path / "small.yaml").write_text(SMALL)
        assert main(draw(tmp_path, days="2026_01_01..2026_01_03,2026_01_26", herds=2, seed=5, frames_per_clip=1)) == 0
        seeds = {path.parts[-3]: json.loads(path.read_text())["seed"] for path in tmp_path.rglob("scene.json")}
        assert seeds == {"2026_01_01": 5, "2026_01_02": 6, "2026_01_03": 5, "2026_01_26": EVALUATION_SEED + 6}

    def test_a_herd_of_evaluation_is_refused(self, pen, capsys):
        refused(capsys, draw(pen, herds=3, seed=EVALUATION_SEED - 2), "--seed: is 999998", "0 to 999997")

    def test_a_second_run_keeps_what_is_there(self, pen):
        before = {path: path.stat().st_mtime_ns for path in pen.rglob("*")}
        assert main(draw(pen)) == 0
        assert {path: path.stat().st_mtime_ns for path in pen.rglob("*")} == before

    def test_wrong_options_are_refused(self, tmp_path, capsys):
        (tmp_path / "small.yaml").write_text(SMALL)
        refused(capsys, draw(tmp_path, seed=EVALUATION_SEED), "--seed: is 1000000", "expected 0 to 999999")
        refused(capsys, draw(tmp_path, "2026_02_01"), "split pen", "puts 2026_02_01 nowhere")
        refused(capsys, draw(tmp_path, "yesterday"), "--days: names the day 'yesterday'", "YYYY_MM_DD")
        refused(capsys, draw(tmp_path, domain="moon"), "moon", "expected one of", "black-coat")
        refused(capsys, draw(tmp_path, colour="pink"), "colour")
        assert not (tmp_path / "clips").exists()

    def test_the_example_of_the_help_has_days_of_every_part(self, capsys):
        with pytest.raises(SystemExit):
            main(["data", "pen", "--help"])
        days = re.findall(r"--days (20[\w.,]+)", capsys.readouterr().out)
        assert days
        assert all({load_split("pen").part_of(day) for day in expand_days(text)} == set(PARTS) for text in days)

    def test_days_are_read_by_hand_checked_cases(self):
        assert expand_days("2026_01_30..2026_02_01, 2026_01_31") == ["2026_01_30", "2026_01_31", "2026_02_01"]
        with pytest.raises(ConfigError, match="ends before it begins"):
            expand_days("2026_01_02..2026_01_01")


class TestShards:
    def test_they_are_written_shown_and_reused(self, pen, tmp_path, capsys):
        out = tmp_path / "shards"
        assert main(shard(pen, out)) == 0
        said = capsys.readouterr()
        assert "train      2 clips        6 frames     2 shards" in said.out
        assert "train      6 labelled frames, 12 boxes\n" in said.out
        assert (
            f"next: pl-distill predict --config cache/pen.yaml --model.teacher TEACHER --data.shards {out}" in said.out
        )
        assert "6/9" in said.err or "9/9" in said.err  # the bar
        (clip,) = read_shard_clips(out, "test")
        assert clip.annotations[0].masks is not None
        assert main(shard(pen, out)) == 0
        said = capsys.readouterr().err
        assert "reusing all 3 shards" in said
        assert f"warning: {out} has no frame in val: no clip is of its days (2026_01_21..2026_01_25)" in said
        assert said.count("warning") == 1

    def test_wrong_options_are_refused(self, pen, tmp_path, capsys):
        out = tmp_path / "shards"
        refused(capsys, shard(pen, out, split="edinburgh"), "puts 2026_01_01 nowhere")
        refused(capsys, shard(pen, out, samples_per_shard=0), "--samples_per_shard: is 0", "at least 1")
        refused(capsys, shard(pen, out, jpeg_quality=101), "--jpeg_quality: is 101", "1 to 100")
        refused(capsys, shard(pen, out, jpg_quality=90), "jpg_quality", "--help")
        refused(capsys, shard(tmp_path, out), tmp_path / "clips", "is not a folder")
        refused(capsys, shard(pen, out, layout="mot"), "no sequence in the MOTChallenge layout")
        assert not out.exists()

    def test_damaged_recordings_are_refused_and_nothing_is_written(self, tmp_path, pen, capsys):
        shutil.copytree(pen / "clips", tmp_path / "clips")
        labels = tmp_path / "clips" / "2026_01_02" / "000000" / "output.json"
        text = labels.read_text()
        labels.write_text(text[:-40])
        refused(capsys, shard(tmp_path, tmp_path / "out"), labels, "is not JSON")
        labels.write_text(text.replace('"frameNumber":2', '"frameNumber":3'))
        refused(capsys, shard(tmp_path, tmp_path / "out"), labels, "frameNumber 3", "expected a frame below 3")
        video = labels.with_name("color.mp4")
        video.write_bytes(video.read_bytes()[:-100])
        refused(capsys, shard(tmp_path, tmp_path / "out"), video, "expected a whole video")
        assert not (tmp_path / "out").exists()

    def test_debug_shows_where_an_error_came_from(self, tmp_path):
        with pytest.raises(Exception, match="is not a folder"):
            main([*shard(tmp_path, tmp_path / "out"), "--debug"])


class TestVerify:
    def test_whole_shards_pass_and_changed_ones_do_not(self, pen, tmp_path, capsys):
        out = tmp_path / "shards"
        assert main(shard(pen, out)) == 0
        assert main(["data", "verify", f"--shards={out}"]) == 0
        assert "every shard is as its manifest says" in capsys.readouterr().out
        path = out / "test" / "test-000000.tar"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        refused(capsys, ["data", "verify", f"--shards={out}"], path, "has SHA-256", "as the manifest says")
        refused(capsys, ["data", "verify", f"--shards={pen}"], pen, "holds no manifest.json")


class TestSplit:
    def test_it_shows_where_each_clip_would_go(self, pen, capsys):
        assert main(["data", "split", f"--clips={pen / 'clips'}", "--split=pen"]) == 0
        said = capsys.readouterr().out
        assert "train: 2025_01_01..2025_12_31, 2026_01_01..2026_01_20" in said
        assert "test   2026_01_26/000000  3 frames, 3 of them labelled, 6 boxes of 2 animals" in said
        assert said.endswith("2 clips in train, 0 clips in val, 1 clips in test\n")

    def test_labels_without_a_box_are_warned_of_and_a_clip_without_labels_is_not(self, tmp_path, capsys):
        for name in ("empty-2026-01-01", "unlabelled-2026-01-02"):
            (tmp_path / "clips" / name / "img1").mkdir(parents=True)
            cv2.imwrite(str(tmp_path / "clips" / name / "img1" / "000001.jpg"), np.zeros((8, 8, 3), np.uint8))
            info = "[Sequence]\nframeRate=6\nseqLength=1\nimWidth=8\nimHeight=8\n"
            (tmp_path / "clips" / name / "seqinfo.ini").write_text(info)
        (tmp_path / "clips" / "empty-2026-01-01" / "gt").mkdir()
        (tmp_path / "clips" / "empty-2026-01-01" / "gt" / "gt.txt").touch()
        for words in (
            ["data", "split", f"--clips={tmp_path / 'clips'}", "--split=pen"],
            shard(tmp_path, tmp_path / "s"),
        ):
            assert main(words) == 0
            said = capsys.readouterr()
            warnings = [line for line in said.err.splitlines() if line.startswith("warning") and "no frame" not in line]
            assert len(warnings) == 1
            assert "warning: empty-2026-01-01 has 1 labelled frames and no box" in warnings[0]
            if "split" in words:
                assert "1 frames, 1 of them labelled, 0 boxes of 0 animals" in said.out
                assert said.out.count("boxes") == 1

    def test_a_split_of_the_users_own_is_taken_by_its_path(self, pen, tmp_path, capsys):
        path = tmp_path / "mine.yaml"
        path.write_text("train: [2026_01_01]\nval: [2026_01_02]\ntest: [2026_01_26]\n")
        assert main(shard(pen, tmp_path / "out", split=path)) == 0
        assert ShardManifest.load(tmp_path / "out").split_name == "mine"
        path.write_text("training: [2026_01_01]\n")
        refused(capsys, ["data", "split", f"--clips={pen / 'clips'}", f"--split={path}"], path, "has the keys training")


@pytest.mark.parametrize("verb", ["pen", "shards", "verify", "split"])
def test_each_verb_has_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["data", verb, "--help"])
    assert stopped.value.code == 0
    assert f"Example: pl-distill data {verb} --" in capsys.readouterr().out
