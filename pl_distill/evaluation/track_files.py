"""Tracks on disk, as MOTChallenge text: one line per frame and track, written as the replay goes.

Layout: motchallenge.net/instructions, `frame, id, left, top, width, height, confidence, -1, -1, -1`. Frames and pixels
count from 1 there and from 0 here: writing adds 1, reading takes it away. Coordinates keep three decimals; all scores
are computed from the file, so that they can be computed again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import AnnotationError
from pl_distill.streaming.tracked import Boxes


@dataclass(frozen=True, eq=False)
class FrameBoxes:
    """Boxes of one frame as read from a file; N tracks.

    Args:
        ids: Identities, unique within the frame.
        boxes_xyxy: Shape (N, 4), float32, pixels from 0.
        scores: Shape (N,), float32.
    """

    ids: tuple[int, ...]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]


NO_BOXES = FrameBoxes((), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

Tracks = Mapping[int, FrameBoxes]
"""Frame index from 0 -> boxes; a missing index is a frame in which nothing was tracked."""


def write_frame(file: TextIO, frame: int, boxes: Boxes) -> None:
    """Append one frame (counted from 0) to an open text file."""
    for identity, (left, top, right, bottom), score in zip(boxes.ids, boxes.boxes_xyxy, boxes.scores, strict=True):
        box = f"{left + 1:.3f},{top + 1:.3f},{right - left:.3f},{bottom - top:.3f}"
        file.write(f"{frame + 1},{identity},{box},{score:.4f},-1,-1,-1\n")


def read_tracks(path: Path) -> dict[int, FrameBoxes]:
    """Read a MOTChallenge text file.

    Raises:
        AnnotationError: A line is not what the layout promises, or an identity occurs twice in one frame.
    """
    rows: dict[int, dict[int, tuple[float, ...]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values = [float(value) for value in line.split(",")]
            frame, identity = int(values[0]) - 1, int(values[1])
            left, top, width, height, score = values[2:7]
        except (ValueError, IndexError, OverflowError):
            raise AnnotationError(
                where, f"is {line!r}", "frame,id,left,top,width,height,confidence in numbers", "Write the file again."
            ) from None
        if frame < 0 or not all(math.isfinite(value) for value in values[:7]):
            raise AnnotationError(where, f"is {line!r}", "finite numbers and frames from 1", "Write the file again.")
        in_frame = rows.setdefault(frame, {})
        if identity in in_frame:
            raise AnnotationError(
                where,
                f"repeats identity {identity} in frame {frame + 1}",
                "one box per identity and frame",
                "Write the file again.",
            )
        in_frame[identity] = (left - 1, top - 1, left - 1 + width, top - 1 + height, score)
    tracks = {}
    for frame, in_frame in rows.items():
        table = np.array(list(in_frame.values()), dtype=np.float32)
        tracks[frame] = FrameBoxes(tuple(in_frame), table[:, :4], table[:, 4])
    return tracks
