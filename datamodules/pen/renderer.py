"""From moments to pictures: paints the herd over the empty pen, low animals first."""

from collections.abc import Iterator

import cv2
import numpy as np

from datamodules.clip import Image
from datamodules.pen.ageing import Age
from datamodules.pen.background import draw_background
from datamodules.pen.camera import Points
from datamodules.pen.coats import make_coat
from datamodules.pen.config import PenConfig
from datamodules.pen.frame import PenFrame
from datamodules.pen.furniture import CHAIN_TOP_M, TOY_HEIGHT_M, TOY_RADIUS_M, circle
from datamodules.pen.herd import make_herd
from datamodules.pen.layout import Layout
from datamodules.pen.light import Light
from datamodules.pen.painting import SHIFT, LitCoat, cast_shadow, fill, fixed_point, paint_animal
from datamodules.pen.simulation import simulate
from datamodules.pen.species import POSTURES
from datamodules.pen.state import SceneState

_ON_SIDE = POSTURES.index("on_side")
_SHINE = ((0.012, 0.82, (226, 190, 40)), (0.030, 0.50, (242, 214, 84)), (0.040, 0.22, (252, 240, 170)))
"""Discs of the toy's gloss: shift in metres towards the lamp, relative radius, colour."""


class PenRenderer:
    """Paints the moments of one pen.

    Args:
        config: The domain.
        seed: Who the animals are; the same as for `simulate`.
        day: The straw lies anew each day.
        clip: Decides the sensor's noise.
        age: How the animals and the light have changed since the first day; None: as drawn.

    Attributes:
        background: The empty pen, RGB.
        herd: The animals, in the order of a state's poses.
        layout: Where everything is, without painting.
    """

    def __init__(self, config: PenConfig, seed: int, day: str = "", clip: str = "", age: Age | None = None) -> None:
        if age is not None:
            config = age.lit(config)
        self.herd = make_herd(config, seed) if age is None else age.grown(make_herd(config, seed))
        self.layout = Layout(config, self.herd)
        self._clip, self._light = clip, Light(config, seed)
        coats = [make_coat(config.coat, seed, number) for number in range(len(self.herd))]
        if age is not None:
            coats = [age.worn(coat, config.coat, seed, number) for number, coat in enumerate(coats)]
        self._coats = [LitCoat.of(coat, self._light) for coat in coats]
        self._empty = draw_background(config, self.layout.furniture, self._light, seed, day)
        self.background = self._light.shade(self._empty.copy())
        self._pixels_per_m = config.width / config.view_width_m

    def render(self, state: SceneState) -> PenFrame:
        """Paint one moment."""
        placed, image = self.layout.place(state), self._empty.copy()
        for number in placed.order:
            pose = state.poses[number]
            paint_animal(
                image,
                placed.shapes[number],
                self._coats[number],
                pose.heading,
                asleep=pose.posture[_ON_SIDE] > 0.5,
                pixels_per_m=self._pixels_per_m,
            )
        self._hang_toy(image, placed.toy, state.toy_swing)
        self._light.expose(image, state.index, self._clip)
        return self.layout.describe(state, placed, image)

    def _hang_toy(self, image: Image, outline: Points, swing: tuple[float, float]) -> None:
        """A yellow ball on a chain."""
        camera, light, size = self.layout.camera, self._light, self._pixels_per_m
        rest = self.layout.furniture.toy
        cast_shadow(image, [outline + 0.10 * size], 0.45, max(1.0, 0.05 * size))
        fill(image, outline, light.colour((196, 158, 24)))
        x, y = rest[0] + swing[0], rest[1] + swing[1]
        for shift, radius, colour in _SHINE:
            disc = circle(camera, (x - shift, y - shift), radius * TOY_RADIUS_M, TOY_HEIGHT_M)
            fill(image, disc, light.colour(colour))
        hook = min(CHAIN_TOP_M, 0.8 * camera.position[2])
        chain = camera.project(np.array([(x, y, TOY_HEIGHT_M + TOY_RADIUS_M / 2), (*rest, hook)]))
        width = max(1, round(size / 110))
        cv2.polylines(image, [fixed_point(chain)], False, light.colour((92, 92, 96)), width, cv2.LINE_AA, SHIFT)


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
