"""From moments to pictures: paints the herd over the empty pen, low animals first, and remembers who is seen where."""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clip import Image
from datamodules.pen.background import draw_background
from datamodules.pen.camera import Camera, Points
from datamodules.pen.coats import make_coat
from datamodules.pen.config import PenConfig
from datamodules.pen.frame import FEEDER_CODE, TOY_CODE, PenFrame, box_of
from datamodules.pen.furniture import CHAIN_TOP_M, TOY_HEIGHT_M, TOY_RADIUS_M, Furniture, circle
from datamodules.pen.herd import make_herd
from datamodules.pen.light import Light
from datamodules.pen.painting import SHIFT, LitCoat, cast_shadow, fill, fixed_point, paint_animal
from datamodules.pen.shapes import Shape, shape_of
from datamodules.pen.simulation import simulate
from datamodules.pen.species import POSTURES
from datamodules.pen.state import SceneState

_PRESENT = 0.04  # of the trunk's outline: with less inside the picture an animal is not in it
_VISIBLE = 0.10  # of the outline inside the picture: with less to be seen an animal is hidden
_ON_SIDE = POSTURES.index("on_side")


class PenRenderer:
    """Paints the moments of one pen.

    Args:
        config: The domain.
        seed: Who the animals are; the same as for `simulate`.
        day: The straw lies anew each day.
        clip: Decides the sensor's noise.

    Attributes:
        background: The empty pen, RGB.
    """

    def __init__(self, config: PenConfig, seed: int, day: str = "", clip: str = "") -> None:
        self.config = config
        self.herd = make_herd(config, seed)
        self._clip = clip
        self._camera, self._furniture, self._light = Camera.of(config), Furniture.of(config), Light(config, seed)
        self._coats = [
            LitCoat.of(make_coat(config.coat, seed, number), self._light) for number in range(len(self.herd))
        ]
        self._empty = draw_background(config, self._furniture, self._light, seed, day)
        self.background = self._light.shade(self._empty.copy())
        feeder = cv2.convexHull(self._furniture.feeder_outline(self._camera).astype(np.float32))[:, 0]
        self._codes = np.zeros(self._empty.shape[:2], np.uint8)
        _mark(self._codes, feeder.astype(np.float64), FEEDER_CODE)
        self._pixels_per_m = config.width / config.view_width_m

    def render(self, state: SceneState) -> PenFrame:
        """Paint one moment."""
        image, codes = self._empty.copy(), self._codes.copy()
        shapes = [shape_of(pose, body, self._camera) for pose, body in zip(state.poses, self.herd, strict=True)]
        for number in np.argsort([pose.depth for pose in state.poses]):
            pose, shape = state.poses[number], shapes[number]
            asleep = pose.posture[_ON_SIDE] > 0.5
            paint_animal(
                image, shape, self._coats[number], pose.heading, asleep=asleep, pixels_per_m=self._pixels_per_m
            )
            for outline in shape.outlines:
                _mark(codes, outline, int(number) + 1)
        self._hang_toy(image, codes, state.toy_swing)
        self._light.expose(image, state.index, self._clip)
        return self._describe(state, image, codes, shapes)

    def _describe(self, state: SceneState, image: Image, codes: NDArray[np.uint8], shapes: list[Shape]) -> PenFrame:
        numbers, boxes, visible = [], [], []
        for number, shape in enumerate(shapes):
            left, top, right, bottom = _window(codes, shape.outlines)
            if left >= right or top >= bottom:
                continue
            outline = np.zeros((bottom - top, right - left), np.uint8)
            for part in shape.outlines:
                _mark(outline, part - (left, top), 1)
            inside = cv2.countNonZero(outline)
            if inside <= _PRESENT * cv2.contourArea(shape.trunk.outline.astype(np.float32)):
                continue
            seen = codes[top:bottom, left:right] == number + 1
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
            instance_map=codes,
        )

    def _hang_toy(self, image: Image, codes: NDArray[np.uint8], swing: tuple[float, float]) -> None:
        """A yellow ball on a chain, above everything else."""
        camera, light, size = self._camera, self._light, self._pixels_per_m
        outline = self._furniture.toy_outline(camera, swing)
        cast_shadow(image, [outline + 0.10 * size], 0.45, max(1.0, 0.05 * size))
        fill(image, outline, light.colour((196, 158, 24)))
        x, y = self._furniture.toy[0] + swing[0], self._furniture.toy[1] + swing[1]
        for shift, radius, colour in (
            (0.012, 0.82, (226, 190, 40)),
            (0.030, 0.50, (242, 214, 84)),
            (0.040, 0.22, (252, 240, 170)),
        ):
            fill(
                image, circle(camera, (x - shift, y - shift), radius * TOY_RADIUS_M, TOY_HEIGHT_M), light.colour(colour)
            )
        chain = camera.project(
            np.array(
                [
                    (x, y, TOY_HEIGHT_M + TOY_RADIUS_M / 2),
                    (*self._furniture.toy, min(CHAIN_TOP_M, 0.8 * camera.position[2])),
                ]
            )
        )
        cv2.polylines(
            image,
            [fixed_point(chain)],
            False,
            light.colour((92, 92, 96)),
            max(1, round(size / 110)),
            cv2.LINE_AA,
            SHIFT,
        )
        _mark(codes, outline, TOY_CODE)


def pen_frames(
    config: PenConfig, *, seed: int, frames: int, every: int = 1, clip: str = "", day: str = ""
) -> Iterator[PenFrame]:
    """Draw a pen in memory, for training and tests.

    Args:
        config: The domain; `width` and `height` decide the cost: about 10 ms a picture at 320 x 180.
        seed: Who the animals are and what they do.
        frames: How many pictures to give.
        every: Of how many moments one is painted: more is more variety.
        clip: Another clip of the same animals.
        day: Other straw.

    Yields:
        Pictures in order; their masks are computed when they are asked for.
    """
    renderer = PenRenderer(config, seed, day, clip)
    for state in simulate(config, seed, (frames - 1) * every + 1 if frames else 0, clip):
        if state.index % every == 0:
            yield renderer.render(state)


def _mark(codes: NDArray[np.uint8], outline: Points, code: int) -> None:
    cv2.fillPoly(codes, [fixed_point(outline)], code, cv2.LINE_8, SHIFT)


def _window(codes: NDArray[np.uint8], outlines: list[Points]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom around all outlines, inside the picture."""
    points = np.concatenate(outlines)
    (left, top), (right, bottom) = points.min(0), points.max(0)
    height, width = codes.shape
    return max(0, int(left) - 1), max(0, int(top) - 1), min(width, int(right) + 2), min(height, int(bottom) + 2)
