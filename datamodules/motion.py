"""What boxes and the axes of masks tell of an animal: where it is, how it is shaped, how it moves, who is near.

This is the baseline that pictures have to beat, and what a head looks at beside them: walk and standing look alike in
one frame.
"""

import numpy as np
from numpy.typing import NDArray

from datamodules.own_frame import OWN_FRAME, own_frame_of

BOX_MOTION = (
    "x",
    "y",
    "log_width",
    "log_height",
    "velocity_x",
    "velocity_y",
    "speed",
    "slow_speed",
    "growth",
    "shape_change",
    "overlap",
    "nearest",
)
"""Names of the values: place and size relative to the frame; velocities in body lengths per second; changes of log area
and log aspect per second; the largest part of the box that another covers; distance of the nearest other middle in body
lengths."""

MOTION = (*BOX_MOTION, *OWN_FRAME)
"""Names of all values: of boxes, then of the animal's own frame."""

_NEAR, REACH = 1, 3
"""Observations to either side over which fast and slow movement are measured; the latter also vote for a direction."""
_FARTHEST = 5.0  # body lengths


def motion_of(
    frame: NDArray[np.int32],
    animal: NDArray[np.int32],
    boxes_xyxy: NDArray[np.float32],
    lies: NDArray[np.float32],
    *,
    fps: float,
    width: int,
    height: int,
) -> NDArray[np.float32]:
    """Describe M animals, by animal and then by frame, with boxes and lies as `AnimalFeatures` has them.

    Returns:
        Shape (M, len(MOTION)), float32, all of the order of 1.
    """
    if not len(frame):
        return np.zeros((0, len(MOTION)), np.float32)
    boxes = boxes_xyxy.astype(np.float64)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    body = size.max(1)
    log_size = np.log(size / (width, height))
    out = np.zeros((len(boxes), len(MOTION)), np.float32)
    out[:, 0:2] = 2 * middle / (width, height) - 1
    out[:, 2:4] = log_size + 2
    starts = np.flatnonzero(np.r_[True, animal[1:] != animal[:-1]])
    for first, last in zip(starts, np.r_[starts[1:], len(animal)], strict=True):
        rows = np.arange(first, last)
        velocity, speed = _change(rows, frame, middle, _NEAR, fps)
        velocity, speed = velocity / body[rows, None], speed / body[rows]
        change, _ = _change(rows, frame, log_size, _NEAR, fps)
        out[rows, 4:6] = np.clip(velocity, -4, 4)
        out[rows, 6] = np.clip(speed, 0, 4)
        out[rows, 7] = np.clip(_change(rows, frame, middle, REACH, fps)[1] / body[rows], 0, 4)
        out[rows, 8] = np.clip(change.sum(1), -4, 4)
        out[rows, 9] = np.clip(change[:, 0] - change[:, 1], -4, 4)
    out[:, 10], out[:, 11] = _neighbours(frame, boxes, middle, body)
    own = own_frame_of(frame, animal, lies, fps=fps, width=width, height=height, reach=REACH)
    out[:, len(BOX_MOTION) :] = own
    return out


def _change(
    rows: NDArray[np.int64], frame: NDArray[np.int32], values: NDArray[np.float64], reach: int, fps: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rate of change per second between `reach` rows before and after, (n, 2), and its length, (n,); 0 for one row."""
    before, after = np.maximum(rows - reach, rows[0]), np.minimum(rows + reach, rows[-1])
    seconds = np.maximum((frame[after] - frame[before]) / fps, 1e-6)
    rate = (values[after] - values[before]) / seconds[:, None]
    rate[after == before] = 0
    return rate, np.hypot(*rate.T)


def _neighbours(
    frame: NDArray[np.int32], boxes: NDArray[np.float64], middle: NDArray[np.float64], body: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    overlap, nearest = np.zeros(len(boxes)), np.full(len(boxes), _FARTHEST)
    order = np.argsort(frame, kind="stable")
    borders = np.flatnonzero(np.r_[True, np.diff(frame[order]) > 0])
    for first, last in zip(borders, np.r_[borders[1:], len(order)], strict=True):
        rows = order[first:last]
        if len(rows) < 2:
            continue
        one = boxes[rows]
        corner = np.minimum(one[:, None, 2:], one[None, :, 2:]) - np.maximum(one[:, None, :2], one[None, :, :2])
        shared = np.clip(corner, 0, None).prod(-1)
        np.fill_diagonal(shared, 0)
        overlap[rows] = (shared / np.maximum((one[:, 2:] - one[:, :2]).prod(1), 1)[:, None]).max(1)
        away = np.linalg.norm(middle[rows, None] - middle[rows][None], axis=-1)
        np.fill_diagonal(away, np.inf)
        nearest[rows] = np.minimum(away.min(1) / body[rows], _FARTHEST)
    return overlap, nearest
