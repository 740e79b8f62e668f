"""Replays with a tracker that knows the truth: what is measured, drawn and kept."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from tqdm import tqdm

from datamodules.images import read_image
from datamodules.video import probe_video
from pl_distill.evaluation.clip_files import ClipFiles, find_record, read_record
from pl_distill.evaluation.mot import count_clip
from pl_distill.evaluation.pairing import pair_with_annotations
from pl_distill.evaluation.replay_recording import picture_frames, record_clip
from pl_distill.evaluation.track_files import read_tracks


@dataclass
class Told:
    """What a tracker gives."""

    ids: tuple[int, ...]
    boxes_xyxy: np.ndarray
    scores: np.ndarray
    masks: np.ndarray


@dataclass
class Oracle:
    """Says what the annotation says, under numbers of its own, and counts how it is used."""

    clip: object
    fails_at: int = -1
    resets: int = 0
    times: list[float] = field(default_factory=list)

    def reset(self):
        self.resets += 1
        self.times.clear()

    def session_bytes(self):
        return 100 + len(self.times)

    def update(self, frame, timestamp_s):
        index = len(self.times)
        if index == self.fails_at:
            raise RuntimeError("the tracker fails")
        self.times.append(timestamp_s)
        boxes = self.clip.source.boxes(index)
        masks = np.zeros((2, *frame.shape[:2]), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = True
        return Told((7, 3), boxes, np.ones(2, np.float32), masks)


@pytest.fixture
def record(tmp_path, make_clip):
    def run(clip=None, identity=None, **options):
        clip = clip or make_clip()
        files = ClipFiles(tmp_path, "model", clip.name)
        oracle = Oracle(clip, options.pop("fails_at", -1))
        options = {"video": True, "max_frames": None, "progress": tqdm(disable=True), **options}
        return oracle, files, record_clip(clip, oracle, files, identity or {"model": "oracle"}, **options)

    return run


def test_a_tracker_that_knows_the_truth_scores_one_hundred(record, make_clip):
    clip = make_clip()
    oracle, files, _ = record(clip)
    scores = count_clip(pair_with_annotations(clip.annotations, read_tracks(files.tracks), 6)).scores()
    assert (scores.mota, scores.idf1, scores.hota) == (100, 100, 100)
    assert (scores.animals, scores.truth_boxes) == (2, 11)
    assert oracle.resets == 1
    assert oracle.times == pytest.approx([index / 6 for index in range(6)])


def test_a_record_has_one_entry_per_frame(record, make_clip):
    _, _, kept = record(make_clip(every=2))
    assert kept.objects == [2] * 6
    assert kept.animals == [2, None, 1, None, 2, None]  # one is hidden in frame 2
    assert len(kept.update_ms) == len(kept.rss_bytes) == 6
    assert kept.session_bytes == [101, 102, 103, 104, 105, 106]
    assert kept.peak_rss_bytes >= max(kept.rss_bytes) > 0
    assert kept.frames_per_second == pytest.approx(6000 / sum(kept.update_ms))
    assert kept.seconds > 0


def test_pictures_are_of_labelled_frames_spread_over_the_clip(record, make_clip):
    assert picture_frames(make_clip(), 6) == [0, 2, 3, 5]
    assert picture_frames(make_clip(every=3), 6) == [0, 3]
    assert picture_frames(replace(make_clip(), annotations={}), 3) == [0, 1, 2]
    assert picture_frames(make_clip(), 0) == []
    _, files, kept = record(make_clip(every=3))
    assert kept.pictures == [0, 3]
    assert read_image(files.picture(3)).shape == (480, 640, 3)  # enlarged by ten


def test_only_what_is_asked_for_is_written(record):
    _, files, kept = record(max_frames=2, video=False)
    assert len(kept.objects) == 2
    assert sorted(read_tracks(files.tracks)) == [0, 1]
    assert not files.video.exists()
    _, files, _ = record(max_frames=4)
    assert probe_video(files.video).num_frames == 4


def test_a_video_never_lies_beside_the_tracks_of_another_replay(record):
    _, files, _ = record(identity={"policy": 1})
    assert files.video.is_file()
    record(identity={"policy": 2}, video=False)
    assert find_record(files, {"policy": 2}, video=True) is None


def test_a_replay_that_fails_leaves_no_track_no_video_and_no_record(record, tmp_path):
    with pytest.raises(RuntimeError, match="the tracker fails"):
        record(fails_at=4)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".jpg"}
    record()
    with pytest.raises(RuntimeError):
        record(fails_at=4)  # what it replaces is not called finished any more
    assert not ClipFiles(tmp_path, "model", "2026_01_26/000000").record.exists()


def test_a_record_is_found_again_while_all_its_files_are_whole(record):
    identity = {"model": "oracle", "policy": {"mode": "exact"}}
    _, files, kept = record(identity=identity)
    assert find_record(files, identity, video=True) == kept
    assert find_record(files, {**identity, "policy": {"mode": "none"}}, video=True) is None
    whole = files.tracks.read_bytes()
    files.tracks.write_bytes(whole[:-9])
    assert find_record(files, identity, video=True) is None
    files.tracks.write_bytes(whole)
    files.masks.write_text("")
    assert find_record(files, identity, video=True) is None
    record(identity=identity)
    kept = read_record(files.record)
    files.video.unlink()
    assert find_record(files, identity, video=True) is None
    assert find_record(files, identity, video=False) == kept
    files.picture(kept.pictures[0]).unlink()
    assert find_record(files, identity, video=False) is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema": 9}', '{"schema": 1, "surplus": 2}'])
def test_a_damaged_record_is_no_record(record, content):
    _, files, kept = record()
    files.record.write_text(content)
    assert find_record(files, kept.identity, video=True) is None
