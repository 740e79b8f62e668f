"""Cut the animals out of a frame: one square picture each, for an embedder."""

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.clip import Image
from datamodules.errors import DataError

BLANK = (124, 116, 104)
"""RGB of what is blanked or lies beyond the frame: ImageNet's mean, 0 once an embedder has normalised it."""


def crop_animals(
    frame_rgb: Image,
    boxes_xyxy: NDArray[Any],
    masks: NDArray[np.bool_] | None = None,
    margin: float = 0.1,
    blank_background: float = 0.0,
    size: int = 224,
) -> Tensor:
    """Cut N squares around N boxes, and scale them to one size.

    The square has the box's middle and its longer side, widened by `margin`: proportions stay as they are, and what
    lies beyond the frame is `BLANK`.

    Args:
        frame_rgb: Picture (H, W, 3), uint8.
        boxes_xyxy: Shape (N, 4), pixels of the frame: left, top, right, bottom. May leave the frame.
        masks: What is seen of each animal, (N, H, W), bool; without them nothing is blanked.
        margin: Added on every side, as a part of the longer side: 0.1 makes the square 1.2 times as long.
        blank_background: How far everything but the animal fades into `BLANK`: 0 keeps it, 1 (True) removes it.
            Between them an animal stands out and its neighbours and the feeder can still be seen.
        size: Side of the squares that are given, in pixels.

    Returns:
        Squares, uint8, (N, 3, size, size).

    Raises:
        DataError: A box has no area inside the frame, or a mask that is to be used has no pixel there. `croppable`
            says which these are; leave them out.
    """
    height, width = _check(frame_rgb, boxes_xyxy, masks)
    fading = masks if blank_background else None
    good = croppable(boxes_xyxy, (height, width), fading)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        box = ", ".join(f"{value:g}" for value in boxes_xyxy[row])
        raise DataError(
            f"box {row} ({box})",
            f"shows nothing of a frame of {width} x {height} pixels",
            "an area of at least a pixel inside it, and a mask with pixels there",
            "Leave such animals out, as `croppable` says.",
        )
    crops = torch.empty(len(boxes_xyxy), 3, size, size, dtype=torch.uint8)
    for row, (left, top, right, bottom) in enumerate(np.asarray(boxes_xyxy, np.float64)):
        side = max(right - left, bottom - top) * (1 + 2 * margin)
        corner = ((left + right - side) / 2, (top + bottom - side) / 2)
        square = _cut(frame_rgb, corner, side)
        if fading is not None:
            seen = _cut(fading[row].astype(np.uint8), corner, side)
            share = np.float32(blank_background) * (1 - seen[..., None].astype(np.float32))
            square = np.rint(square + share * (np.array(BLANK, np.float32) - square)).astype(np.uint8)
        shrinks = square.shape[0] > size
        scaled = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        crops[row] = torch.from_numpy(scaled).permute(2, 0, 1)
    return crops


def croppable(
    boxes_xyxy: NDArray[Any], frame_size: tuple[int, int], masks: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Say which animals can be cut out: at least one pixel of the box inside the frame, and of the mask in the box.

    Args:
        boxes_xyxy: Shape (N, 4), pixels.
        frame_size: Height and width of the frame.
        masks: Shape (N, H, W), or None where masks are not used.

    Returns:
        Shape (N,), bool.
    """
    height, width = frame_size
    good = np.zeros(len(boxes_xyxy), bool)
    for row, box in enumerate(np.asarray(boxes_xyxy, np.float64)):
        if not np.isfinite(box).all():
            continue
        left, top = max(0.0, box[0]), max(0.0, box[1])
        right, bottom = min(float(width), box[2]), min(float(height), box[3])
        if right - left < 1 or bottom - top < 1:
            continue
        inside = np.s_[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
        good[row] = masks is None or bool(masks[row][inside].any())
    return good


def _check(frame_rgb: Image, boxes_xyxy: NDArray[Any], masks: NDArray[np.bool_] | None) -> tuple[int, int]:
    if frame_rgb.ndim != 3 or frame_rgb.shape[2] != 3 or frame_rgb.dtype != np.uint8:
        raise ValueError(f"frame is {frame_rgb.dtype} of shape {frame_rgb.shape}, expected uint8 of shape (H, W, 3)")
    height, width = frame_rgb.shape[:2]
    count = len(boxes_xyxy)
    if boxes_xyxy.shape != (count, 4):
        raise ValueError(f"boxes_xyxy has shape {boxes_xyxy.shape}, expected (N, 4)")
    if masks is not None and masks.shape != (count, height, width):
        raise ValueError(f"masks has shape {masks.shape}, expected ({count}, {height}, {width})")
    return height, width


def _cut(picture: NDArray[np.uint8], corner: tuple[float, float], side: float) -> NDArray[np.uint8]:
    """Cut a square of whole pixels; what lies beyond the picture is `BLANK`, or 0 in a mask."""
    left, top = round(corner[0]), round(corner[1])
    length = max(1, round(side))
    height, width = picture.shape[:2]
    inside = picture[max(0, top) : max(0, top + length), max(0, left) : max(0, left + length)]
    if inside.shape[:2] == (length, length):
        return inside
    cut = np.empty((length, length, *picture.shape[2:]), np.uint8)
    cut[:] = BLANK if picture.ndim == 3 else 0
    rows = slice(max(0, -top), max(0, -top) + min(height, top + length) - max(0, top))
    columns = slice(max(0, -left), max(0, -left) + min(width, left + length) - max(0, left))
    cut[rows, columns] = inside
    return cut
