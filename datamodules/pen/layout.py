"""Where everything is in the picture and what covers what, without painting it."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clip import Image
from datamodules.pen.camera import Camera, Points
from datamodules.pen.config import PenConfig
from datamodules.pen.frame import FEEDER_CODE, TOY_CODE, PenFrame, box_of
from datamodules.pen.furniture import Furniture
from datamodules.pen.painting import SHIFT, fixed_point
from datamodules.pen.shapes import Shape, shape_of
from datamodules.pen.state import Body, SceneState

_PRESENT = 0.04  # of the trunk's outline: with less inside the picture an animal is not in it
_VISIBLE = 0.10  # of the outline inside the picture: with less to be seen an animal is hidden


@dataclass(frozen=True)
class Placed:
    """One moment in the picture's coordinates.

    Args:
        shapes: One per animal of the herd.
        order: Numbers of the animals as they are painted, the lowest first.
        toy: Outline of the toy.
        codes: (H, W) uint8, what each pixel shows; see `PenFrame.instance_map`.
    """

    shapes: list[Shape]
    order: list[int]
    toy: Points
    codes: NDArray[np.uint8]


class Layout:
    """Projects moments into the picture.

    Args:
        config: The domain.
        herd: Who is in the pen.
    """

    def __init__(self, config: PenConfig, herd: Sequence[Body]) -> None:
        self.camera, self.furniture, self.herd = Camera.of(config), Furniture.of(config), herd
        feeder = cv2.convexHull(self.furniture.feeder_outline(self.camera).astype(np.float32))[:, 0]
        self._empty = np.zeros((config.height, config.width), np.uint8)
        mark(self._empty, feeder.astype(np.float64), FEEDER_CODE)

    def place(self, state: SceneState) -> Placed:
        """Find every outline of one moment, and who covers whom; the toy hangs above everything."""
        shapes = [shape_of(pose, body, self.camera) for pose, body in zip(state.poses, self.herd, strict=True)]
        order = [int(number) for number in np.argsort([pose.depth for pose in state.poses])]
        codes = self._empty.copy()
        for number in order:
            for outline in shapes[number].outlines:
                mark(codes, outline, number + 1)
        toy = self.furniture.toy_outline(self.camera, state.toy_swing)
        mark(codes, toy, TOY_CODE)
        return Placed(shapes, order, toy, codes)

    def describe(self, state: SceneState, placed: Placed, image: Image) -> PenFrame:
        """Put a picture together with what is known about it."""
        numbers, boxes, visible = [], [], []
        for number, shape in enumerate(placed.shapes):
            window = _window(placed.codes, shape.outlines)
            if window is None:
                continue
            left, top, right, bottom = window
            outline = np.zeros((bottom - top, right - left), np.uint8)
            for part in shape.outlines:
                mark(outline, part - (left, top), 1)
            inside = cv2.countNonZero(outline)
            if inside <= _PRESENT * cv2.contourArea(shape.trunk.outline.astype(np.float32)):
                continue
            seen = placed.codes[top:bottom, left:right] == number + 1
            is_visible = bool(np.count_nonzero(seen) > _VISIBLE * inside)
            box = box_of(seen if is_visible else outline > 0, left, top)
            assert box is not None
            numbers.append(number)
            boxes.append(box)
            visible.append(is_visible)
        return PenFrame(
            index=state.index,
            timestamp_s=state.time_s,
            image=image,
            codes=tuple(number + 1 for number in numbers),
            names=tuple(self.herd[number].name for number in numbers),
            boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
            behaviours=tuple(state.poses[number].behaviour for number in numbers),
            visible=np.array(visible, bool),
            instance_map=placed.codes,
        )


def mark(codes: NDArray[np.uint8], outline: Points, code: int) -> None:
    """Fill a polygon with a value, without smooth edges."""
    cv2.fillPoly(codes, [fixed_point(outline)], code, cv2.LINE_8, SHIFT)


def _window(codes: NDArray[np.uint8], outlines: list[Points]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom around all outlines, inside the picture; None if nothing is."""
    points = np.concatenate(outlines)
    (left, top), (right, bottom) = points.min(0), points.max(0)
    height, width = codes.shape
    left, top, right, bottom = max(0, int(left) - 1), max(0, int(top) - 1), int(right) + 2, int(bottom) + 2
    right, bottom = min(width, right), min(height, bottom)
    return (left, top, right, bottom) if left < right and top < bottom else None
