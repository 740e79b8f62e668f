"""Overlap of boxes: the one distance that every tracking score here is built on.

motmetrics 1.4.0 has an `iou_matrix` of its own, which calls `np.asfarray` and so fails on NumPy 2
(github.com/cheind/py-motmetrics/issues/199).
"""

import numpy as np
from numpy.typing import NDArray


def iou_matrix(boxes_a: NDArray[np.floating], boxes_b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the intersection over union of each box in `boxes_a` with each in `boxes_b`.

    Args:
        boxes_a: Shape (N, 4), left, top, right, bottom.
        boxes_b: Shape (M, 4), in the same coordinates.

    Returns:
        Shape (N, M), 0-1. A box without area overlaps nothing, not even itself.
    """
    a = np.asarray(boxes_a, dtype=np.float64).reshape(-1, 4)[:, None, :]  # (N, 1, 4)
    b = np.asarray(boxes_b, dtype=np.float64).reshape(-1, 4)[None, :, :]  # (1, M, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = sides.clip(min=0).prod(axis=-1)
    union = (
        (a[..., 2:] - a[..., :2]).clip(min=0).prod(-1) + (b[..., 2:] - b[..., :2]).clip(min=0).prod(-1) - intersection
    )
    iou: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return iou
