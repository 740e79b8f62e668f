"""HOTA: one number for finding animals and for keeping them apart.

Source: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", International Journal of
Computer Vision 129 (2021), doi.org/10.1007/s11263-020-01375-2. Written from the paper, with two choices that it leaves
to its reference implementation (github.com/JonathonLuiten/TrackEval, metrics/hota.py): one matching per frame serves
all thresholds, and it maximises overlap times the alignment of the two whole tracks. That package is not a dependency,
because it brings an OpenCV that needs a display.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pl_distill.evaluation.pairing import FramePair

ALPHAS: NDArray[np.float64] = np.arange(1, 20) / 20
"""Overlap thresholds over which HOTA is averaged: 0.05, 0.10 ... 0.95."""


@dataclass(frozen=True, eq=False)
class HotaCounts:
    """What HOTA is computed from; counts of clips add up, since identities do not cross clips.

    Args:
        true_positives: Shape (19,), matched boxes at each threshold of `ALPHAS`.
        association: Shape (19,), the sum over matched boxes of how well their two tracks agree, each 0-1.
        truth_boxes: Boxes of animals.
        track_boxes: Boxes of tracks.
    """

    true_positives: NDArray[np.float64]
    association: NDArray[np.float64]
    truth_boxes: int
    track_boxes: int

    def __add__(self, other: "HotaCounts") -> "HotaCounts":
        return HotaCounts(
            self.true_positives + other.true_positives,
            self.association + other.association,
            self.truth_boxes + other.truth_boxes,
            self.track_boxes + other.track_boxes,
        )

    def detection_by_alpha(self) -> NDArray[np.float64]:
        """Return DetA at each threshold, 0-1: matched boxes over all boxes, each counted once."""
        union = self.truth_boxes + self.track_boxes - self.true_positives
        return np.asarray(self.true_positives / np.maximum(union, 1))

    def association_by_alpha(self) -> NDArray[np.float64]:
        """Return AssA at each threshold, 0-1: mean agreement of tracks over matched boxes; 0 where nothing matched."""
        return np.asarray(self.association / np.maximum(self.true_positives, 1))

    def percentages(self) -> tuple[float, float, float] | None:
        """Return HOTA, DetA and AssA, 0-100, averaged over the thresholds; None without animals and tracks."""
        if self.truth_boxes == 0 and self.track_boxes == 0:
            return None
        detection, association = self.detection_by_alpha(), self.association_by_alpha()
        hota = np.sqrt(detection * association)
        return 100 * float(hota.mean()), 100 * float(detection.mean()), 100 * float(association.mean())


NOTHING = HotaCounts(np.zeros(len(ALPHAS)), np.zeros(len(ALPHAS)), 0, 0)


def count_hota(frames: Sequence[FramePair]) -> HotaCounts:
    """Match the tracks of one clip to its animals and count what HOTA needs."""
    truth_row = {name: row for row, name in enumerate(dict.fromkeys(name for frame in frames for name in frame.truth))}
    track_column = {
        name: column for column, name in enumerate(dict.fromkeys(name for frame in frames for name in frame.tracks))
    }
    rows = [np.array([truth_row[name] for name in frame.truth], dtype=np.intp) for frame in frames]
    columns = [np.array([track_column[name] for name in frame.tracks], dtype=np.intp) for frame in frames]
    truth_length = np.bincount(np.concatenate([*rows, np.zeros(0, np.intp)]), minlength=len(truth_row))
    track_length = np.bincount(np.concatenate([*columns, np.zeros(0, np.intp)]), minlength=len(track_column))

    # How much two whole tracks agree, before anything is matched: a soft Jaccard index over the clip.
    shared = np.zeros((len(truth_row), len(track_column)))
    for frame, row, column in zip(frames, rows, columns, strict=True):
        competing = frame.iou.sum(axis=0)[None, :] + frame.iou.sum(axis=1)[:, None] - frame.iou
        shared[np.ix_(row, column)] += np.divide(
            frame.iou, competing, out=np.zeros_like(frame.iou), where=competing > 0
        )
    alignment = shared / np.maximum(truth_length[:, None] + track_length[None, :] - shared, np.finfo(float).eps)

    together = np.zeros((len(ALPHAS), len(truth_row), len(track_column)))  # frames in which the two are matched
    for frame, row, column in zip(frames, rows, columns, strict=True):
        best_row, best_column = linear_sum_assignment(alignment[np.ix_(row, column)] * frame.iou, maximize=True)
        # An overlap that equals the threshold counts, rounding aside.
        passes = frame.iou[best_row, best_column][None, :] >= ALPHAS[:, None] - np.finfo(float).eps
        together[:, row[best_row], column[best_column]] += passes
    agreement = together / np.maximum(truth_length[:, None] + track_length[None, :] - together, 1)
    return HotaCounts(
        true_positives=together.sum(axis=(1, 2)),
        association=(together * agreement).sum(axis=(1, 2)),
        truth_boxes=int(truth_length.sum()),
        track_boxes=int(track_length.sum()),
    )
