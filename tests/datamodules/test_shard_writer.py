"""Writing shards: interrupted, again, over something else, and from clips that are not what they say."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from datamodules.errors import ClipError, DataError, ShardError, SplitError
from datamodules.layouts import read_clips
from datamodules.shards import ShardManifest, read_shard_clips, verify_shards, write_shards
from datamodules.splits import load_split
from tests.python_process import python_process

PEN = load_split("pen")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_the_same_recording_in_two_parts_is_told_of(make_clip, tmp_path, caplog):
    """Without labels nothing else but its pictures says what a clip is."""
    clips = [make_clip(name, 4) for name in ("2026_01_01/000000", "2026_01_02/000000", "2026_01_26/000000")]
    clips = [replace(clip, source=clips[0].source, annotations={}) for clip in clips]
    write_shards(clips, PEN, tmp_path)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "clip 2026_01_26/000000 (test) has the very pictures of 2026_01_01/000000 (train): leave one of them out"
    ]


class TestInterrupted:
    def interrupted(self, make_clip, folder, fail_at):
        clips = [make_clip("2026_01_01/000000", 10, fail_at=fail_at), make_clip("2026_01_26/000000", 4)]
        with pytest.raises(KeyboardInterrupt):
            write_shards(clips, PEN, folder, samples_per_shard=3)

    def whole(self, make_clip):
        return [make_clip("2026_01_01/000000", 10), make_clip("2026_01_26/000000", 4)]

    def test_nothing_half_written_is_left(self, make_clip, tmp_path, refused):
        self.interrupted(make_clip, tmp_path, fail_at=7)  # shards of 3, 3, 2, 2 frames: the third is cut
        shards = ["train/train-000000.tar", "train/train-000001.tar"]
        assert sorted(contents(tmp_path)) == [".lock", "journal.jsonl", *shards]
        refused(ShardError, lambda: verify_shards(tmp_path), where=tmp_path, found="no manifest", fix="again")
        refused(ShardError, lambda: read_shard_clips(tmp_path, "train"), where=tmp_path, found="no manifest")

    @pytest.mark.parametrize("fail_at", [0, 1, 4, 9])
    def test_the_next_run_goes_on_and_ends_as_if_nothing_had_been(self, make_clip, tmp_path, fail_at, capsys):
        self.interrupted(make_clip, tmp_path / "a", fail_at)
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.tar")}
        write_shards(self.whole(make_clip), PEN, tmp_path / "a", samples_per_shard=3)
        assert {path: path.stat().st_mtime_ns for path in before} == before  # finished shards are not touched
        assert len(before) == {0: 0, 1: 0, 4: 1, 9: 3}[fail_at]
        assert (f"reusing {len(before)} of 6 shards" in capsys.readouterr().err) == bool(before)
        write_shards(self.whole(make_clip), PEN, tmp_path / "b", samples_per_shard=3)
        assert contents(tmp_path / "a") == contents(tmp_path / "b")
        verify_shards(tmp_path / "a")

    def test_a_clip_whose_shards_are_finished_is_not_decoded_again(self, make_clip, tmp_path):
        clips = [make_clip("2026_01_01/000000", 6), make_clip("2026_01_02/000000", 6, fail_at=3)]
        with pytest.raises(KeyboardInterrupt):
            write_shards(clips, PEN, tmp_path, samples_per_shard=3)
        clips = [make_clip("2026_01_01/000000", 6), make_clip("2026_01_02/000000", 6)]
        write_shards(clips, PEN, tmp_path, samples_per_shard=3)
        assert [clip.source.taken for clip in clips] == [0, 6]

    def test_every_picture_is_decoded_once(self, make_clip, tmp_path):
        clips = [make_clip("2026_01_01/000000", 7), make_clip("2026_01_02/000000", 6)]
        write_shards(clips, PEN, tmp_path, samples_per_shard=3)
        assert [clip.source.taken for clip in clips] == [7, 6]

    def test_a_run_with_other_options_starts_over_and_leaves_no_old_shard(self, make_clip, tmp_path):
        self.interrupted(make_clip, tmp_path / "a", fail_at=9)
        write_shards(self.whole(make_clip), PEN, tmp_path / "a", samples_per_shard=8)
        write_shards(self.whole(make_clip), PEN, tmp_path / "b", samples_per_shard=8)
        assert contents(tmp_path / "a") == contents(tmp_path / "b")

    @pytest.mark.parametrize("cut", [1, 40, 150])
    def test_a_journal_that_is_cut_in_two_costs_one_shard_at_most(self, make_clip, tmp_path, cut):
        self.interrupted(make_clip, tmp_path / "a", fail_at=7)
        journal = tmp_path / "a" / "journal.jsonl"
        journal.write_bytes(journal.read_bytes()[:-cut])
        write_shards(self.whole(make_clip), PEN, tmp_path / "a", samples_per_shard=3)
        write_shards(self.whole(make_clip), PEN, tmp_path / "b", samples_per_shard=3)
        assert contents(tmp_path / "a") == contents(tmp_path / "b")

    def test_of_two_processes_one_writes_and_the_other_finds_what_it_wrote(self, make_clip, tmp_path, capsys):
        """Seeds of one data folder, started together: one would delete the file that another is writing."""
        with ThreadPoolExecutor(2) as pool:
            done = [pool.submit(write_shards, self.whole(make_clip), PEN, tmp_path / "a") for _ in range(2)]
            first, second = (one.result() for one in done)
        assert first == second
        said = capsys.readouterr().err
        assert "reusing all 2 shards" in said
        write_shards(self.whole(make_clip), PEN, tmp_path / "b")
        assert contents(tmp_path / "a") == contents(tmp_path / "b")

    def test_what_a_killed_process_leaves_behind_is_finished(self, make_clip, tmp_path, write_edinburgh_clip, entry):
        """SIGKILL runs no clean-up: the temporary file stays until the next run."""
        for day in ("2026_01_01", "2026_01_26"):
            write_edinburgh_clip(tmp_path / "clips", f"{day}/000000", objects={"1": [entry(0)]}, frames=30)
        code = (
            "import sys, time; from datamodules import shard_writer as w; from datamodules.layouts import read_clips\n"
            "from datamodules.splits import load_split\n"
            "real = w.encode_jpeg\n"
            "def slow(*args): time.sleep(0.02); return real(*args)\n"
            "w.encode_jpeg = slow\n"
            "w.write_shards(read_clips(sys.argv[1]), load_split('pen'), sys.argv[2], samples_per_shard=10)\n"
        )
        out = tmp_path / "a"
        with python_process("-c", code, tmp_path / "clips", out, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while not (out / "train" / "train-000001.tar").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            while not list(out.glob("train/.*partial*")) and process.poll() is None:
                time.sleep(0.002)
        assert not (out / "manifest.json").exists()
        assert list(out.glob("*/.*partial*"))
        for folder in ("a", "b"):
            write_shards(read_clips(tmp_path / "clips"), PEN, tmp_path / folder, samples_per_shard=10)
        assert contents(out) == contents(tmp_path / "b")
        assert not [name for name in contents(out) if "partial" in name or "journal" in name]


class TestSecondRun:
    def test_it_reuses_everything_and_says_so(self, folder, make_clip, clips, capsys):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        manifest = write_shards(clips, PEN, folder, samples_per_shard=4)
        assert manifest == ShardManifest.load(folder)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
        assert f"{folder}: reusing all 5 shards" in capsys.readouterr().err

    def test_it_writes_again_what_is_missing(self, folder, clips):
        before = contents(folder)
        (folder / "train" / "train-000001.tar").unlink()
        (folder / "val" / "val-000000.tar").write_bytes(b"short")
        write_shards(clips, PEN, folder, samples_per_shard=4)
        assert contents(folder) == before

    @pytest.mark.parametrize(
        ("options", "found"),
        [
            ({"jpeg_quality": 50}, "differ in quality of the pictures"),
            ({"samples_per_shard": 3}, "differ in their size or the order of clips"),
        ],
    )
    def test_shards_of_other_options_are_not_overwritten(self, folder, clips, refused, options, found):
        before = contents(folder)
        refused(
            ShardError,
            lambda: write_shards(clips, PEN, folder, **{"samples_per_shard": 4, **options}),
            where=folder,
            found=found,
            expected="shards of the same clips, split and options",
            fix="Give another folder, or delete this one",
        )
        assert contents(folder) == before

    def test_shards_of_other_clips_are_not_overwritten(self, folder, clips, refused):
        refused(ShardError, lambda: write_shards(clips[:2], PEN, folder, samples_per_shard=4), found="differ in clips")
        reordered = [clips[1], clips[0], *clips[2:]]
        refused(
            ShardError, lambda: write_shards(reordered, PEN, folder, samples_per_shard=4), found="the order of clips"
        )

    def test_tars_of_somebody_else_are_not_overwritten(self, clips, tmp_path, refused):
        (tmp_path / "train").mkdir()
        (tmp_path / "train" / "train-000000.tar").write_bytes(b"precious")
        refused(ShardError, lambda: write_shards(clips, PEN, tmp_path), where=tmp_path, found="neither manifest.json")
        assert contents(tmp_path) == {"train/train-000000.tar": b"precious"}


class TestRefusedBeforeWriting:
    def test_a_day_that_is_in_no_part(self, clips, make_clip, tmp_path, refused):
        clips.append(make_clip("2026_02_01/000000"))
        refused(SplitError, lambda: write_shards(clips, PEN, tmp_path / "out"), found="puts 2026_02_01 nowhere")
        assert not (tmp_path / "out").exists()

    def test_clips_whose_samples_would_have_one_name(self, make_clip, tmp_path, refused):
        clips = [make_clip("2026_01_01/a b"), make_clip("2026_01_01/a.b")]
        refused(
            ShardError,
            lambda: write_shards(clips, PEN, tmp_path / "out"),
            where="clips 2026_01_01/a b and 2026_01_01/a.b",
            found="2026_01_01-a-b-f",
        )
        assert not (tmp_path / "out").exists()

    def test_a_name_that_the_tars_of_a_cache_have_no_room_for(self, make_clip, tmp_path, refused):
        clips = [make_clip(f"2026_01_01/{'n' * 60}")]
        check = {"found": "has a name of 71 characters", "expected": "at most 70"}
        refused(ShardError, lambda: write_shards(clips, PEN, tmp_path / "out"), **check)
        assert not (tmp_path / "out").exists()

    def test_no_clips(self, tmp_path, refused):
        refused(DataError, lambda: write_shards([], PEN, tmp_path), found="are none", expected="at least one clip")

    @pytest.mark.parametrize("options", [{"samples_per_shard": 0}, {"jpeg_quality": 0}, {"jpeg_quality": 101}])
    def test_impossible_options(self, clips, tmp_path, options):
        with pytest.raises(ValueError, match="out of range"):
            write_shards(clips, PEN, tmp_path, **options)


class TestPictures:
    def test_a_clip_that_ends_early_is_refused(self, make_clip, tmp_path, refused):
        clip = make_clip(frames=5)
        clip.source.images.pop()
        refused(
            ClipError, lambda: write_shards([clip], PEN, tmp_path), where=clip.name, found="ends after 4", expected="5"
        )
        assert not (tmp_path / "manifest.json").exists()

    def test_a_picture_of_another_size_is_refused(self, make_clip, tmp_path, refused):
        clip = make_clip(frames=5)
        clip.source.images[3] = np.zeros((24, 32, 3), np.uint8)
        refused(
            ClipError,
            lambda: write_shards([clip], PEN, tmp_path),
            where=f"{clip.name}, frame 3",
            found="shape (24, 32, 3)",
            expected="(48, 64, 3)",
        )
        assert not list(tmp_path.rglob("*.tar*"))
