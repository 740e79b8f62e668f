"""Scores against TrackEval itself, where it is installed: ``pip install --no-deps trackeval tabulate``.

It is no dependency: it asks for an OpenCV that needs a display and replaces the headless one. What it gave on the
public sequences is written down in test_mot.py.
"""

from pathlib import Path

import motmetrics
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pl_distill.evaluation.hota import count_hota
from pl_distill.evaluation.mot import count_clip
from pl_distill.evaluation.pairing import FramePair, pair_with_tracks
from pl_distill.evaluation.track_files import FrameBoxes

trackeval = pytest.importorskip("trackeval", reason="TrackEval is not installed")


def as_trackeval(frames) -> dict:
    """Turn judged frames into what TrackEval's metrics take."""
    truth = {name: row for row, name in enumerate(dict.fromkeys(n for frame in frames for n in frame.truth))}
    tracks = {name: row for row, name in enumerate(dict.fromkeys(n for frame in frames for n in frame.tracks))}
    return {
        "num_timesteps": len(frames),
        "num_gt_ids": len(truth),
        "num_tracker_ids": len(tracks),
        "num_gt_dets": sum(len(frame.truth) for frame in frames),
        "num_tracker_dets": sum(len(frame.tracks) for frame in frames),
        "gt_ids": [np.array([truth[name] for name in frame.truth], int) for frame in frames],
        "tracker_ids": [np.array([tracks[name] for name in frame.tracks], int) for frame in frames],
        "similarity_scores": [frame.iou for frame in frames],
    }


def theirs(metric: str, frames) -> dict:
    return getattr(trackeval.metrics, metric)({"PRINT_CONFIG": False}).eval_sequence(as_trackeval(frames))


def load_public_tracks(path: Path) -> dict[int, FrameBoxes]:
    rows = np.loadtxt(path, delimiter=",", usecols=range(6))
    tracks = {}
    for frame in np.unique(rows[:, 0]):
        found = rows[rows[:, 0] == frame]
        boxes = np.hstack([found[:, 2:4], found[:, 2:4] + found[:, 4:6]]).astype(np.float32)
        tracks[int(frame) - 1] = FrameBoxes(tuple(found[:, 1].astype(int).tolist()), boxes, np.ones(len(boxes)))
    return tracks


@pytest.mark.parametrize("sequence", ["TUD-Campus", "TUD-Stadtmitte"])
def test_public_sequences_score_the_same(sequence):
    folder = Path(motmetrics.__file__).parent / "data" / sequence
    truth, tracks = load_public_tracks(folder / "gt.txt"), load_public_tracks(folder / "test.txt")
    frames = pair_with_tracks(truth, tracks, max(truth) + 1)
    ours = count_clip(frames).scores()
    clear, identity, hota = (theirs(metric, frames) for metric in ("CLEAR", "Identity", "HOTA"))
    assert (ours.misses, ours.false_positives) == (clear["CLR_FN"], clear["CLR_FP"])
    assert (ours.id_switches, ours.fragmentations) == (clear["IDSW"], clear["Frag"])
    assert (ours.mostly_tracked, ours.mostly_lost) == (clear["MT"], clear["ML"])
    assert ours.mota == pytest.approx(100 * clear["MOTA"], abs=1e-3)
    assert ours.motp == pytest.approx(100 * clear["MOTP"], abs=1e-3)
    for name in ("IDF1", "IDP", "IDR"):
        assert getattr(ours, name.lower()) == pytest.approx(100 * identity[name], abs=1e-3)
    for name in ("HOTA", "DetA", "AssA"):
        assert getattr(ours, name.lower()) == pytest.approx(100 * np.mean(hota[name]), abs=1e-3)


@st.composite
def clips(draw):
    """Up to six frames of up to three animals and three tracks, with overlaps that do not tie."""
    frames = []
    for _ in range(draw(st.integers(1, 6))):
        truth = draw(st.lists(st.sampled_from("abc"), unique=True))
        tracks = draw(st.lists(st.integers(0, 2), unique=True))
        seed = draw(st.integers(0, 2**32 - 1))
        frames.append(
            FramePair(tuple(truth), tuple(tracks), np.random.default_rng(seed).random((len(truth), len(tracks))))
        )
    return frames


@settings(max_examples=60)
@given(clips())
def test_hota_is_the_same_on_any_clip(frames):
    if not any(frame.truth for frame in frames) or not any(frame.tracks for frame in frames):
        return
    ours, hota = count_hota(frames).percentages(), theirs("HOTA", frames)
    assert ours == pytest.approx([100 * np.mean(hota[name]) for name in ("HOTA", "DetA", "AssA")], abs=1e-6)
