"""Tracking scores, on cases small enough to count by hand and on a public pair of files."""

from pathlib import Path

import motmetrics
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pl_distill.evaluation.mot import TrackingCounts, count_clip
from pl_distill.evaluation.pairing import FramePair, pair_with_tracks
from pl_distill.evaluation.track_files import FrameBoxes


def paired(*frames: dict[str, int | None], extra: tuple[int, ...] = ()) -> list[FramePair]:
    """Frames in which each animal has a track that covers it wholly, or none; `extra` tracks cover nothing."""
    pairs = []
    for frame in frames:
        tracks = tuple(track for track in frame.values() if track is not None) + extra
        iou = np.array([[float(mine is not None and mine == track) for track in tracks] for mine in frame.values()])
        pairs.append(FramePair(tuple(frame), tracks, iou.reshape(len(frame), len(tracks))))
    return pairs


def test_perfect_tracks_score_one_hundred():
    scores = count_clip(paired({"a": 1, "b": 2}, {"a": 1, "b": 2})).scores()
    assert (scores.mota, scores.idf1, scores.hota, scores.motp) == (100, 100, 100, 100)
    assert (scores.animals, scores.mostly_tracked, scores.mostly_lost) == (2, 2, 0)


def test_swapped_identities_count_two_switches():
    scores = count_clip(paired({"a": 1, "b": 2}, {"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": 2, "b": 1})).scores()
    assert scores.id_switches == 2
    assert scores.mota == 75  # 8 boxes, 2 errors
    assert scores.idf1 == 50  # whichever names are chosen, half of the boxes carry them
    assert scores.matches == 8


def test_misses_and_false_positives_count_per_box():
    scores = count_clip(paired({"a": 1, "b": None}, {"a": 1, "b": None}, extra=(9,))).scores()
    assert (scores.misses, scores.false_positives, scores.id_switches) == (2, 2, 0)
    assert scores.mota == 0  # 4 boxes, 4 errors
    assert scores.idf1 == 50  # 2 * 2 / (4 + 4)
    assert scores.mostly_lost == 1


def test_lost_and_found_again_is_one_fragmentation_and_no_switch():
    scores = count_clip(paired({"a": 1}, {"a": None}, {"a": 1})).scores()
    assert (scores.fragmentations, scores.id_switches, scores.misses) == (1, 0, 1)


def test_more_errors_than_boxes_give_a_negative_mota():
    assert count_clip(paired({"a": 1}, extra=(7, 8, 9))).scores().mota == -200


@pytest.mark.parametrize(("iou", "misses"), [(0.5, 0), (0.4999, 1)])
def test_an_overlap_at_the_threshold_matches(iou, misses):
    assert count_clip([FramePair(("a",), (1,), np.array([[iou]]))]).misses == misses


def test_hota_of_a_track_that_covers_half_an_animals_life():
    # Two of four boxes found, by one track that has no others: at every threshold DetA = AssA = 2/4, HOTA = sqrt(1/4).
    scores = count_clip(paired({"a": 1}, {"a": 1}, {"a": None}, {"a": None})).scores()
    assert (scores.hota, scores.deta, scores.assa) == pytest.approx((50, 50, 50))


def test_hota_of_an_identity_switch_in_the_middle():
    # All boxes found: DetA = 1. Each is in a pair that shares 2 frames of a union of 4: AssA = 1/2.
    scores = count_clip(paired({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2})).scores()
    assert scores.deta == 100
    assert scores.assa == 50
    assert scores.hota == pytest.approx(100 * np.sqrt(0.5), abs=1e-4)


def test_hota_falls_with_loose_boxes():
    # An overlap of 0.62 passes the 12 thresholds up to 0.60 of 19.
    scores = count_clip([FramePair(("a",), (1,), np.array([[0.62]]))]).scores()
    assert scores.hota == pytest.approx(100 * 12 / 19, abs=1e-4)


def test_without_animals_and_tracks_the_ratios_are_undefined():
    for frames in ([], paired({}, {})):
        scores = count_clip(frames).scores()
        assert (scores.mota, scores.idf1, scores.hota, scores.motp) == (None, None, None, None)
        assert scores.scored_frames == len(frames)


def test_without_tracks_everything_is_missed():
    scores = count_clip(paired({"a": None, "b": None})).scores()
    assert (scores.mota, scores.idf1, scores.hota, scores.misses, scores.mostly_lost) == (0, 0, 0, 2, 2)
    assert scores.idp is None


def test_without_animals_every_track_is_wrong():
    scores = count_clip(paired({}, {}, extra=(1,))).scores()
    assert (scores.mota, scores.idf1, scores.hota, scores.false_positives) == (None, 0, 0, 2)


def test_clips_are_pooled_by_their_boxes_and_identities_do_not_cross_them():
    long_clip = count_clip(paired(*[{"a": 1}] * 9))
    short_clip = count_clip(paired({"a": None}))
    other_track = count_clip(paired({"a": 2}))
    assert (long_clip + short_clip).scores().mota == 90  # the mean of the clips would be 50
    pooled = (long_clip + other_track).scores()
    assert (pooled.id_switches, pooled.idf1, pooled.hota, pooled.animals) == (0, 100, 100, 2)
    assert (TrackingCounts() + long_clip).scores() == long_clip.scores()


@settings(max_examples=25)
@given(
    st.lists(
        st.lists(st.sampled_from([None, 0, 1, 2]), min_size=3, max_size=3, unique_by=lambda x: x or object()),
        max_size=5,
    )
)
def test_renaming_tracks_changes_no_score(frames):
    names = [dict(zip("abc", frame, strict=True)) for frame in frames]
    renamed = [{a: None if t is None else 70 - t for a, t in frame.items()} for frame in names]
    assert count_clip(paired(*names)).scores() == count_clip(paired(*renamed)).scores()


def load_public_tracks(path: Path) -> dict[int, FrameBoxes]:
    rows = np.loadtxt(path, delimiter=",", usecols=range(7))
    tracks = {}
    for frame in np.unique(rows[:, 0]):
        of_frame = rows[rows[:, 0] == frame]
        boxes = np.hstack([of_frame[:, 2:4], of_frame[:, 2:4] + of_frame[:, 4:6]]).astype(np.float32)
        tracks[int(frame) - 1] = FrameBoxes(
            tuple(of_frame[:, 1].astype(int).tolist()), boxes, np.ones(len(boxes), np.float32)
        )
    return tracks


SCORES = ("mota", "idf1", "hota", "deta", "assa", "motp")
EVENTS = ("id_switches", "misses", "false_positives", "fragmentations", "mostly_tracked", "mostly_lost")


# The two sequences lie in the motmetrics package. Expected: TrackEval 1.3.0 (HOTA, CLEAR, Identity) on the same boxes.
@pytest.mark.parametrize(
    ("sequence", "scores", "events"),
    [
        ("TUD-Campus", (52.6462, 55.7659, 39.1397, 41.8047, 36.9121, 72.2799), (7, 150, 13, 7, 1, 1)),
        ("TUD-Stadtmitte", (56.4014, 64.4619, 39.7849, 39.2268, 40.8841, 65.4096), (7, 452, 45, 6, 5, 1)),
    ],
)
def test_scores_equal_a_second_implementation_on_public_tracks(sequence, scores, events):
    folder = Path(motmetrics.__file__).parent / "data" / sequence
    truth, tracks = load_public_tracks(folder / "gt.txt"), load_public_tracks(folder / "test.txt")
    ours = count_clip(pair_with_tracks(truth, tracks, max(truth) + 1)).scores()
    assert [getattr(ours, name) for name in SCORES] == pytest.approx(scores, abs=2e-4)
    assert tuple(getattr(ours, name) for name in EVENTS) == events
