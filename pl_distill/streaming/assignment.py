"""One detection for one track, where transformers lets a detection speak for every track that it overlaps.

Source of what is replaced: transformers, models/sam3_video/modeling_sam3_video.py (`_associate_det_trk`). There, two
tracks that have come to lie on one animal are both confirmed by its only detection, in every frame, and live for ever;
and of two detections that overlap one track most, the last puts it right, not the better one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


class Association(NamedTuple):
    """What one frame's detections say of the tracks, as transformers returns it.

    Args:
        new: Numbers of the detections that begin a track.
        unmatched: Ids of the tracks that have a mask but no detection.
        matched: Number of a detection -> ids of the tracks that it confirms.
        corrections: Id of a track -> number of the detection whose mask may replace its own.
        empty: Ids of the tracks that have no mask.
    """

    new: list[int]
    unmatched: list[int]
    matched: dict[int, list[int]]
    corrections: dict[int, int]
    empty: list[int]


class Thresholds(NamedTuple):
    """Those of a SAM 3 that an assignment needs; its configuration has them under other names.

    Args:
        confirm: Least overlap (IoU) at which a detection says that a track is there: ``assoc_iou_thresh``.
        find: Least overlap at which a track counts as found: ``trk_assoc_iou_thresh``.
        correct: Least overlap at which a detection may put a track right: ``high_iou_thresh``.
        certain: Least score of such a detection: ``high_conf_thresh``.
    """

    confirm: float
    find: float
    correct: float
    certain: float


def assign(overlap: NDArray[np.floating], least: float) -> list[tuple[int, int]]:
    """Give the pairs (row, column) with the largest sum of overlaps, one to one, each at least `least` and above 0."""
    allowed = np.where(overlap >= least, overlap, 0.0)
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if allowed[row, column] > 0]


def one_to_one(
    loose: Association,
    overlap: NDArray[np.floating],
    scores: NDArray[np.floating],
    tracks: Sequence[int],
    thresholds: Thresholds,
) -> Association:
    """Give each detection to one track at most. Which detections begin a track stays as it was.

    Args:
        loose: As transformers associates.
        overlap: IoU of the masks, shape (detections, tracks), 0-1; 0 where they were found by different prompts.
        scores: Of the detections, 0-1.
        tracks: Ids of the columns of `overlap`.
        thresholds: Of the model.
    """
    pairs = assign(overlap, thresholds.confirm)
    matched: dict[int, list[int]] = {detection: [] for detection in range(len(scores))}
    for detection, column in pairs:
        matched[detection].append(tracks[column])
    found = {tracks[column] for detection, column in pairs if overlap[detection, column] >= thresholds.find}
    return Association(
        loose.new,
        [track for track in tracks if track not in found and track not in set(loose.empty)],
        matched,
        {
            tracks[column]: detection
            for detection, column in pairs
            if scores[detection] >= thresholds.certain and overlap[detection, column] >= thresholds.correct
        },
        loose.empty,
    )
