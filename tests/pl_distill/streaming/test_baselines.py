"""Simpler trackers: transformers' own session, and detections joined by overlap."""

import numpy as np
import pytest
import torch

from pl_distill.streaming import DetectionTracker, PruningPolicy, StockTracker, StreamingTracker


def test_the_stock_tracker_is_transformers_own_streaming(model, prompt, preprocessing, clip):
    policy = PruningPolicy.as_transformers("none")
    ours, stock = StreamingTracker(model, prompt, preprocessing, policy), StockTracker(model, prompt, preprocessing)
    sizes = []
    for index, picture in enumerate(clip(6)):
        one, other = ours.update(picture, index), stock.update(picture, index)
        assert one.ids == other.ids
        assert np.array_equal(one.masks, other.masks)
        assert np.array_equal(one.scores, other.scores)
        sizes.append(stock.session_bytes())
    assert len(one) > 0
    assert sizes == sorted(set(sizes))  # it grows with every frame
    stock.reset()
    assert stock.update(next(clip(1)), 0).ids == StockTracker(model, prompt, preprocessing).update(next(clip(1)), 0).ids


@pytest.fixture
def scripted(model, prompt, preprocessing, monkeypatch):
    """A tracker whose detector says what a test tells it: boxes (pixels of 48 x 64) with scores, frame by frame."""
    model.new_det_thresh = 0.5
    tracker = DetectionTracker(model, prompt, preprocessing, patience=2)

    def run(*frames):
        def detect(frame):
            found = frames[len(results)]
            masks = torch.full((len(found), 48, 64), -5.0)
            for mask, ((left, top, right, bottom), _) in zip(masks, found, strict=True):
                mask[top:bottom, left:right] = 5.0
            return masks, torch.tensor([score for _, score in found])

        monkeypatch.setattr(tracker, "_detect", detect)
        results = []
        for index in range(len(frames)):
            results.append(tracker.update(np.zeros((48, 64, 3), np.uint8), index))
        return results

    return run


LEFT, RIGHT = (4, 4, 20, 20), (40, 4, 56, 20)


def test_boxes_that_overlap_go_on_under_their_identity(scripted):
    first, second = scripted([(LEFT, 0.9), (RIGHT, 0.8)], [((42, 4, 58, 20), 0.8), ((6, 4, 22, 20), 0.9)])
    assert first.ids == second.ids == (0, 1)
    assert first.boxes_xyxy.tolist() == [list(LEFT), list(RIGHT)]
    assert second.boxes_xyxy[0].tolist() == [6, 4, 22, 20]  # the order of detections does not matter
    assert second.masks.sum(axis=(1, 2)).tolist() == [256, 256]


def test_too_little_overlap_is_another_animal(scripted):
    # 16 wide, moved by 8: IoU 8/24, above 0.3; by 9: 7/25, below
    assert [one.ids for one in scripted([(LEFT, 0.9)], [((12, 4, 28, 20), 0.9)], [((21, 4, 37, 20), 0.9)])] == [
        (0,),
        (0,),
        (1,),
    ]


def test_an_identity_waits_for_as_many_frames_as_its_patience_and_never_comes_back(scripted):
    assert [one.ids for one in scripted([(LEFT, 0.9)], [], [], [(LEFT, 0.9)])] == [(0,), (), (), (0,)]
    assert [one.ids for one in scripted([(RIGHT, 0.9)], [], [], [], [(RIGHT, 0.9)])] == [(1,), (), (), (), (2,)]


def test_a_weak_detection_continues_a_track_but_begins_none(scripted):
    assert [one.ids for one in scripted([(LEFT, 0.4)], [(LEFT, 0.6)], [(LEFT, 0.4)])] == [(), (0,), (0,)]


def test_the_real_detector_feeds_it_and_nothing_grows(model, prompt, preprocessing, clip):
    tracker = DetectionTracker(model, prompt, preprocessing)
    sizes, counts = [], []
    for index, picture in enumerate(clip(4)):
        counts.append(len(tracker.update(picture, index)))
        sizes.append(tracker.session_bytes())
    assert min(counts) > 0
    assert len(set(sizes)) == 1
    assert type(model).__name__ == "Sam3VideoModel"
