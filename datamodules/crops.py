"""Cut the animals out of a frame: one square picture each, for an embedder."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.clip import Image
from datamodules.errors import DataError
from datamodules.lies import inside, lies_of

BLANK = (124, 116, 104)
"""RGB of what is blanked or lies beyond the frame: ImageNet's mean, 0 once an embedder has normalised it."""


@dataclass(frozen=True, slots=True)
class Cropping:
    """How animals are cut out. It belongs to an embedder: other crops give other embeddings.

    Args:
        margin: Added on every side, as a part of the longer side: 0.1 makes the square 1.2 times as long.
        blank_background: How far everything but the animal fades into `BLANK`: 0 keeps it, 1 removes it. Between
            them an animal stands out, and its neighbours and the feeder can still be seen. Needs masks.
        align: Whether animals are turned so that their long axis lies level and their slimmer end, mostly the head, to
            the right. From above an animal is seen in every direction, and a network that need not learn them all
            tells more animals apart. Needs masks.
    """

    margin: float = 0.1
    blank_background: float = 0.0
    align: bool = False

    @property
    def needs_masks(self) -> bool:
        """Whether masks change the crops."""
        return self.blank_background > 0 or self.align


def crop_animals(
    frame_rgb: Image,
    boxes_xyxy: NDArray[Any],
    masks: NDArray[np.bool_] | None = None,
    margin: float = 0.1,
    blank_background: float = 0.0,
    size: int = 224,
    align: bool = False,
) -> Tensor:
    """Cut N squares around N boxes, and scale them to one size.

    The square has the box's middle and its longer side, widened by `margin`: proportions stay as they are, and what
    lies beyond the frame is `BLANK`. An aligned square is laid around the mask instead.

    Args:
        frame_rgb: Picture (H, W, 3), uint8.
        boxes_xyxy: Shape (N, 4), pixels of the frame: left, top, right, bottom. May leave the frame.
        masks: What is seen of each animal, (N, H, W), bool; without them nothing is blanked or aligned.
        margin: See `Cropping`.
        blank_background: See `Cropping`; True is 1.
        size: Side of the squares that are given, in pixels.
        align: See `Cropping`.

    Returns:
        Squares, uint8, (N, 3, size, size).

    Raises:
        DataError: A box has no area inside the frame, or a mask that is to be used has no pixel there. `croppable`
            says which these are; leave them out.
    """
    used = masks if blank_background or align else None
    layers = crop_layers(frame_rgb, boxes_xyxy, used, margin, size, align)
    crops = torch.from_numpy(fade(layers[..., :3], layers[..., 3:], float(blank_background)))
    return crops.permute(0, 3, 1, 2).contiguous()


def crop_layers(
    frame_rgb: Image,
    boxes_xyxy: NDArray[Any],
    masks: NDArray[np.bool_] | None,
    margin: float,
    size: int,
    align: bool,
) -> NDArray[np.uint8]:
    """Cut pictures and masks together, (N, size, size, 4): red, green, blue, and 255 where the animal is seen.

    Without masks the fourth is 255 everywhere. Arguments and errors are those of `crop_animals`.
    """
    height, width = _check(frame_rgb, boxes_xyxy, masks)
    good = croppable(boxes_xyxy, (height, width), masks)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        box = ", ".join(f"{value:g}" for value in boxes_xyxy[row])
        raise DataError(
            f"box {row} ({box})",
            f"shows nothing of a frame of {width} x {height} pixels",
            "an area of at least a pixel inside it, and a mask with pixels there",
            "Leave such animals out, as `croppable` says.",
        )
    layers = np.full((len(boxes_xyxy), size, size, 4), 255, np.uint8)
    for row, (left, top, right, bottom) in enumerate(np.asarray(boxes_xyxy, np.float64)):
        mask = None if masks is None else masks[row]
        middle, side, angle = ((left + right) / 2, (top + bottom) / 2), max(right - left, bottom - top), 0.0
        if align and mask is not None:
            x, y, length, across, angle, _ = lies_of(boxes_xyxy[row : row + 1], mask[None])[0].tolist()
            middle, side = (x, y), max(length, across)
        side *= 1 + 2 * margin
        layers[row, ..., :3] = _cut(frame_rgb, middle, side, angle, size)
        if mask is not None:
            layers[row, ..., 3] = 255 * (_cut(mask.view(np.uint8) * np.uint8(255), middle, side, angle, size) > 127)
    return layers


def fade(pictures: NDArray[np.uint8], masks: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Let everything outside of the masks (..., 1) fade into `BLANK` by `share`, 0-1, in pictures (..., 3)."""
    if share == 0:
        return np.ascontiguousarray(pictures)
    faded = pictures + np.float32(share) * (np.array(BLANK, np.float32) - pictures)
    return np.where(masks > 127, pictures, np.rint(faded).astype(np.uint8))


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
        good[row] = masks is None or bool(masks[row][inside(np.array((left, top, right, bottom)))].any())
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


def _cut(
    picture: NDArray[np.uint8], middle: tuple[float, float], side: float, angle: float, size: int
) -> NDArray[np.uint8]:
    """Cut a square, turned by `angle`, scaled to `size`; what lies beyond the picture is `BLANK`, or 0 in a mask."""
    if angle:
        # Scaled first, without aliasing, then turned at the size that is asked for.
        wider = int(np.ceil(size * np.sqrt(2))) + 2
        square = _cut(picture, middle, side * wider / size, 0.0, wider)
        turn = np.asarray(
            cv2.getRotationMatrix2D(((wider - 1) / 2, (wider - 1) / 2), np.degrees(angle), 1.0), np.float64
        )
        turn[:, 2] -= np.float64((wider - size) / 2)
        blank = BLANK if picture.ndim == 3 else 0
        turned = cv2.warpAffine(square, turn, (size, size), flags=cv2.INTER_LINEAR, borderValue=blank)
        return np.asarray(turned, np.uint8)
    length = max(1, round(side))
    left, top = round(middle[0] - length / 2), round(middle[1] - length / 2)
    cut = picture[max(0, top) : max(0, top + length), max(0, left) : max(0, left + length)]
    if cut.shape[:2] != (length, length):
        inside = cut
        cut = np.empty((length, length, *picture.shape[2:]), np.uint8)
        cut[:] = BLANK if picture.ndim == 3 else 0
        above, beside = max(0, -top), max(0, -left)
        cut[above : above + inside.shape[0], beside : beside + inside.shape[1]] = inside
    interpolation = cv2.INTER_AREA if length > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, (size, size), interpolation=interpolation), np.uint8)
