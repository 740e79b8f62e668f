"""Frames with what was tracked drawn into them: outline, box and identity, in a colour that stays with the identity.

Truth is drawn as thin white boxes, dotted where the animal is hidden. Small frames are enlarged by a whole factor
first, so that a label can be read.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clip import Annotation, Image

MIN_SIDE = 480
"""Pixels: a frame whose shorter side is less is enlarged."""

_GOLDEN_TURN = 0.6180339887  # successive identities get hues far apart, whatever their number
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Drawable(Protocol):
    """Tracks of one frame: N boxes and, where there are any, masks."""

    @property
    def ids(self) -> tuple[int, ...]:
        """One identity per box."""

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """Shape (N, 4), pixels."""

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Shape (N, H, W)."""


@dataclass(frozen=True)
class Canvas:
    """The size that annotated frames of a clip get.

    Args:
        factor: Whole number by which frames are enlarged.
        width: Of the annotated frame; even, as video needs it.
        height: Of the annotated frame; even.
    """

    factor: int
    width: int
    height: int

    @classmethod
    def of(cls, width: int, height: int) -> "Canvas":
        """Choose the canvas for frames of `width` x `height`: enlarged to `MIN_SIDE`, odd sides padded by one pixel."""
        factor = max(1, -(-MIN_SIDE // min(width, height)))
        return cls(factor, width * factor + width * factor % 2, height * factor + height * factor % 2)


def colour_of(identity: int) -> tuple[int, int, int]:
    """Return the RGB colour of an identity: the same in every frame and run, vivid, of one of two lightnesses."""
    hue = identity * _GOLDEN_TURN % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 if identity % 2 else 0.6, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def annotate(
    image: Image,
    tracks: Drawable,
    truth: Annotation | None,
    canvas: Canvas,
    caption: str = "",
    labels: Sequence[str] | None = None,
    text_scale: float | None = None,
) -> Image:
    """Draw tracks and truth into a copy of a frame.

    Args:
        image: RGB picture (H, W, 3).
        tracks: What was tracked in it.
        truth: The animals, or None where the frame is unlabelled.
        canvas: From `Canvas.of` the size of `image`.
        caption: A line for the lower left corner.
        labels: What is written at each track; None for the identities.
        text_scale: Size of letters, as OpenCV counts it; None: in proportion to the canvas.

    Returns:
        RGB picture of the canvas's size.
    """
    factor = canvas.factor
    picture = np.zeros((canvas.height, canvas.width, 3), np.uint8)
    height, width = image.shape[:2]
    picture[: height * factor, : width * factor] = np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    line = max(1, round(min(canvas.width, canvas.height) / 300))
    scale = min(canvas.width, canvas.height) / 1000 if text_scale is None else text_scale
    if truth is not None:
        for box, visible in zip(truth.boxes_xyxy, truth.visible, strict=True):
            _draw_box(picture, box * factor, (255, 255, 255), 1, dotted=not visible)
    for index, identity in enumerate(tracks.ids):
        colour = colour_of(identity)
        _draw_outline(picture, tracks.masks[index], factor, colour, line)
        _draw_box(picture, tracks.boxes_xyxy[index] * factor, colour, line)
    for index, identity in enumerate(tracks.ids):  # labels last, so that no box crosses them
        left, top = tracks.boxes_xyxy[index, :2] * factor
        text = str(identity) if labels is None else labels[index]
        _draw_label(picture, text, (left, top), colour_of(identity), scale)
    if caption:
        _draw_label(picture, caption, (0, canvas.height), (255, 255, 255), scale)
    return picture


def _draw_outline(
    picture: Image, mask: NDArray[np.bool_], factor: int, colour: tuple[int, int, int], line: int
) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    enlarged = [contour * factor + factor // 2 for contour in contours]
    cv2.drawContours(picture, enlarged, -1, colour, line, cv2.LINE_AA)


def _draw_box(
    picture: Image, box: NDArray[np.float32], colour: tuple[int, int, int], line: int, dotted: bool = False
) -> None:
    left, top, right, bottom = (round(float(value)) for value in box)
    if not dotted:
        cv2.rectangle(picture, (left, top), (right, bottom), colour, line)
        return
    for start in range(left, right, 6):
        cv2.line(picture, (start, top), (min(start + 2, right), top), colour, line)
        cv2.line(picture, (start, bottom), (min(start + 2, right), bottom), colour, line)
    for start in range(top, bottom, 6):
        cv2.line(picture, (left, start), (left, min(start + 2, bottom)), colour, line)
        cv2.line(picture, (right, start), (right, min(start + 2, bottom)), colour, line)


def _draw_label(
    picture: Image, text: str, corner: tuple[float, float], colour: tuple[int, int, int], scale: float
) -> None:
    """Write dark text on a plate of the colour, its upper left corner at `corner` but inside the picture."""
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, 1)
    pad = max(2, height // 4)
    left = int(np.clip(corner[0], 0, max(0, picture.shape[1] - width - 2 * pad)))
    top = int(np.clip(corner[1], 0, max(0, picture.shape[0] - height - baseline - 2 * pad)))
    end = (left + width + 2 * pad, top + height + baseline + 2 * pad)
    cv2.rectangle(picture, (left, top), end, colour, cv2.FILLED)
    ink = (20, 20, 20) if np.dot(colour, (0.299, 0.587, 0.114)) > 110 else (255, 255, 255)  # luma of BT.601
    cv2.putText(picture, text, (left + pad, top + pad + height), _FONT, scale, ink, 1, cv2.LINE_AA)
