"""What part of a picture a network is shown, and how light falls on it: the same for all frames of a window."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco
from torch import Tensor

from datamodules.clip import RLE, Annotation, Image

KEPT = 0.25  # of an object's area: with less inside the view, the object is not in it


@dataclass(frozen=True)
class View:
    """A rectangle of a picture, perhaps mirrored. Coordinates are in units of the picture, 0-1.

    Args:
        left: Left edge.
        top: Top edge.
        width: Of the rectangle.
        height: Of the rectangle.
        mirror_x: Whether left and right change places.
        mirror_y: Whether top and bottom change places.
    """

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def random(cls, rng: np.random.Generator, *, zoom: float, mirror_y: bool) -> "View":
        """Draw a view.

        Args:
            rng: Decides.
            zoom: The smallest side of the rectangle; half of the views are the whole picture.
            mirror_y: Whether half of the views are upside down, as for a camera that looks straight down.
        """
        chance, width, height, x, y, flip_x, flip_y = rng.random(7).tolist()
        if chance < 0.5:
            width = height = 1.0
        else:
            width, height = (zoom + (1 - zoom) * side for side in (width, height))
        return cls((1 - width) * x, (1 - height) * y, width, height, flip_x < 0.5, mirror_y and flip_y < 0.5)

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom of the rectangle in a picture of this size, at least one pixel."""
        left, top = round(self.left * width), round(self.top * height)
        right, bottom = round((self.left + self.width) * width), round((self.top + self.height) * height)
        left, top = min(left, width - 1), min(top, height - 1)
        return left, top, max(right, left + 1), max(bottom, top + 1)

    def of_image(self, image: Image) -> Image:
        """Cut the view out of a picture (H, W, C) or a mask (H, W)."""
        left, top, right, bottom = self.pixels(image.shape[1], image.shape[0])
        cut = image[top:bottom, left:right]
        cut = cut[:, ::-1] if self.mirror_x else cut
        return np.ascontiguousarray(cut[::-1] if self.mirror_y else cut)

    def of_boxes(self, boxes_xyxy: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
        """Map boxes in pixels of the picture to units of the view, cut at its edges: (N, 4), maybe of zero area."""
        left, top, right, bottom = self.pixels(width, height)
        size = np.array([right - left, bottom - top] * 2, np.float32)
        boxes: NDArray[np.float32] = ((boxes_xyxy - np.array([left, top, left, top], np.float32)) / size).clip(0, 1)
        if self.mirror_x:
            boxes[:, [0, 2]] = 1 - boxes[:, [2, 0]]
        if self.mirror_y:
            boxes[:, [1, 3]] = 1 - boxes[:, [3, 1]]
        return boxes


@dataclass  # not frozen: Lightning moves batches to a device by copying and setting fields
class FrameTruth:
    """The objects in one view of one frame; N of them.

    Args:
        identities: Names, unique within the clip.
        boxes: (N, 4), float32, xyxy, in units of the view.
        masks: (N, m, m), float32, the covered part of each pixel, 0-1; None where the source has no masks.
    """

    identities: tuple[str, ...]
    boxes: Tensor
    masks: Tensor | None


def truth_of(annotation: Annotation, view: View, *, width: int, height: int, mask_size: int) -> FrameTruth:
    """Say what of a frame's objects is in a view; hidden objects, and those of which little is left, are not.

    Args:
        annotation: Of the whole picture.
        view: What is shown.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        mask_size: Side of the square masks, which are squashed as the picture is.
    """
    visible = np.flatnonzero(annotation.visible)
    names = [annotation.identities[i] for i in visible]
    boxes = view.of_boxes(annotation.boxes_xyxy[visible], width, height)
    if annotation.masks is None:
        left, top, right, bottom = view.pixels(width, height)
        area = np.prod(annotation.boxes_xyxy[visible, 2:] - annotation.boxes_xyxy[visible, :2], axis=1)
        seen = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * ((right - left) * (bottom - top))
        kept = np.flatnonzero(seen >= KEPT * area)
        return FrameTruth(tuple(names[i] for i in kept), torch.from_numpy(boxes[kept]), None)
    kept_names, kept_boxes, kept_masks = [], [], []
    for name, mask in zip(names, _decode([annotation.masks[i] for i in visible]), strict=True):
        cut = view.of_image(mask)
        if cut.sum(dtype=np.int64) < max(KEPT * mask.sum(dtype=np.int64), 1):
            continue
        kept_names.append(name)
        columns, rows = np.flatnonzero(cut.any(0)), np.flatnonzero(cut.any(1))
        edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
        kept_boxes.append(edges / np.array([cut.shape[1], cut.shape[0]] * 2, np.float32))
        small = cv2.resize(cut.astype(np.float32), (mask_size, mask_size), interpolation=cv2.INTER_AREA)
        kept_masks.append(torch.from_numpy(small))
    return FrameTruth(
        tuple(kept_names),
        torch.from_numpy(np.array(kept_boxes, np.float32).reshape(-1, 4)),
        torch.stack(kept_masks) if kept_masks else torch.zeros(0, mask_size, mask_size),
    )


@dataclass(frozen=True)
class Weather:
    """A change of light, colour and sensor noise, on normalised pixels.

    Args:
        gain: (3, 1, 1), factor per channel.
        offset: Added to all channels.
        noise: Standard deviation of independent noise per pixel.
    """

    gain: Tensor
    offset: float
    noise: float

    @classmethod
    def random(cls, rng: np.random.Generator, strength: float) -> "Weather":
        """Draw one; `strength` is the largest relative change of brightness, 0 for none."""
        common, offset, noise = rng.uniform(-1, 1, 3).tolist()
        channels = torch.from_numpy(rng.uniform(-1, 1, (3, 1, 1)).astype(np.float32)) * strength / 3
        return cls((1 + strength * common) * (1 + channels), strength * offset / 2, strength * max(noise, 0) / 10)

    def __call__(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """Map pixels (3, S, S), normalised to about -1 to 1; `rng` draws the noise."""
        changed = (pixels + 1) * self.gain - 1 + self.offset
        if self.noise > 0:
            drawn = rng.standard_normal(tuple(pixels.shape), np.float32)
            changed = changed + self.noise * torch.from_numpy(drawn)
        return changed


def _decode(masks: list[RLE]) -> list[NDArray[np.uint8]]:
    if not masks:
        return []
    decoded = coco.decode([{"size": mask["size"], "counts": mask["counts"].encode("ascii")} for mask in masks])
    return [np.ascontiguousarray(decoded[:, :, i]) for i in range(decoded.shape[2])]
