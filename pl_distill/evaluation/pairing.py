"""Lay tracks beside truth, frame by frame, and leave out what must not be judged.

Two things are not judged. A frame that nobody labelled is skipped. An animal that is hidden (`visible` False) has a
guessed box: it is removed, and so is the track that covers it, since such a track is neither right nor wrong. Visible
animals are served first: tracks are matched to them by the largest sum of overlaps, and only what is left can be
excused by a hidden animal (also one to one, at the same threshold). TrackEval treats the distractors of MOTChallenge
alike (datasets/mot_challenge_2d_box.py) but matches both kinds at once, by which a guessed box can take the track of an
animal that is seen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.clip import Annotation
from pl_distill.evaluation.boxes import iou_matrix
from pl_distill.evaluation.track_files import NO_BOXES, Tracks
from pl_distill.streaming.assignment import assign

IOU_THRESHOLD = 0.5
"""Least overlap at which a track can stand for an animal; the habit of CLEAR MOT for boxes."""


@dataclass(frozen=True, eq=False)
class FramePair:
    """One judged frame: N animals, M tracks.

    Args:
        truth: Identities of the animals.
        tracks: Identities of the tracks.
        iou: Shape (N, M), 0-1.
    """

    truth: tuple[str, ...]
    tracks: tuple[int, ...]
    iou: NDArray[np.float64]


def pair_with_annotations(annotations: Mapping[int, Annotation], tracks: Tracks, frames: int) -> list[FramePair]:
    """Pair the labelled frames among the first `frames` of a clip with its tracks, hidden animals excused."""
    return [_pair_visible(annotations[index], tracks, index) for index in sorted(annotations) if index < frames]


def pair_with_tracks(reference: Tracks, tracks: Tracks, frames: int) -> list[FramePair]:
    """Pair every one of the first `frames` frames of a clip with the tracks of another model, which serve as truth."""
    pairs = []
    for index in range(frames):
        truth, found = reference.get(index, NO_BOXES), tracks.get(index, NO_BOXES)
        names = tuple(str(identity) for identity in truth.ids)
        pairs.append(FramePair(names, found.ids, iou_matrix(truth.boxes_xyxy, found.boxes_xyxy)))
    return pairs


def _pair_visible(truth: Annotation, tracks: Tracks, index: int) -> FramePair:
    found = tracks.get(index, NO_BOXES)
    iou = iou_matrix(truth.boxes_xyxy, found.boxes_xyxy)
    visible = np.flatnonzero(truth.visible)
    excused: set[int] = set()
    if len(visible) < len(truth):
        serving = {column for _, column in match(iou[visible])}
        spare = [column for column in range(len(found.ids)) if column not in serving]
        excused = {spare[column] for _, column in match(iou[~truth.visible][:, spare])}
    judged = [column for column in range(len(found.ids)) if column not in excused]
    return FramePair(
        tuple(truth.identities[row] for row in visible),
        tuple(found.ids[column] for column in judged),
        iou[visible][:, judged],
    )


def match(iou: NDArray[np.float64], threshold: float = IOU_THRESHOLD) -> Iterable[tuple[int, int]]:
    """Give the pairs (row, column) with the largest sum of overlaps, one to one, each at least `threshold`."""
    return assign(iou, threshold)
