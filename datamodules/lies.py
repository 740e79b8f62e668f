"""How an animal lies in the picture: middle, length, width and direction of its long axis, from its mask or its box.

A mask tells its direction but not always its ends: from above an animal's slimmer end is mostly its head. What follows
an animal over time (`datamodules.motion`) asks the frames around it as well.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LIE = ("x", "y", "length", "width", "angle", "slimness")
"""Columns. `x`, `y`: middle of the shape, in pixels. `length`, `width`: along and across its long axis, in pixels.
`angle`: direction of the axis towards the slimmer end, in radians, clockwise in the picture from its right side.
`slimness`: how much slimmer that end is: skewness of the shape along the axis, 0 for a symmetric one."""

_LONGER = 1.05
"""From which ratio of its axes on a shape has a direction; a rounder one lies level."""


def lies_of(boxes_xyxy: NDArray[Any], masks: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Say how N animals lie.

    Args:
        boxes_xyxy: Shape (N, 4), pixels.
        masks: What is seen of each, (N, H, W), bool, with a pixel in each box. Without them a box lies along its longer
            side, and no end is slimmer.

    Returns:
        Shape (N, len(LIE)).
    """
    out = np.zeros((len(boxes_xyxy), len(LIE)))
    for row, box in enumerate(np.asarray(boxes_xyxy, np.float64)):
        out[row] = _of_box(box) if masks is None else _of_mask(masks[row], box)
    return out


def inside(box_xyxy: NDArray[Any]) -> tuple[slice, slice]:
    """Rows and columns of a box."""
    left, top, right, bottom = np.maximum(np.asarray(box_xyxy, np.float64), 0)
    return np.s_[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]


def _of_box(box: NDArray[np.float64]) -> tuple[float, ...]:
    width, height = box[2:] - box[:2]
    middle = (box[:2] + box[2:]) / 2
    return (*middle, max(width, height), min(width, height), np.pi / 2 * bool(height > width), 0.0)


def _of_mask(mask: NDArray[np.bool_], box: NDArray[np.float64]) -> tuple[float, ...]:
    rows, columns = inside(box)
    y, x = np.nonzero(mask[rows, columns])
    points = np.stack([x + columns.start + 0.5, y + rows.start + 0.5])
    centre = points.mean(1, keepdims=True)
    values, axes = np.linalg.eigh(np.cov(points) if points.shape[1] > 2 else np.eye(2))
    along, slimness = axes[:, 1], 0.0  # rising eigenvalues: the second axis is the long one
    if values[1] < _LONGER**2 * values[0]:
        along = np.array((1.0, 0.0))
    else:
        third = float(((along @ (points - centre)) ** 3).mean())
        along = -along if third < 0 else along  # the long thin tail of the shape is the slimmer end
        slimness = abs(third) / float(values[1]) ** 1.5
    across = np.array((-along[1], along[0]))
    away = np.stack([along, across]) @ (points - centre)  # (2, pixels)
    low, high = away.min(1), away.max(1)
    middle = centre[:, 0] + (low + high)[0] / 2 * along + (low + high)[1] / 2 * across
    length, width = high - low + 1
    return (*middle, length, width, float(np.arctan2(along[1], along[0])), slimness)
