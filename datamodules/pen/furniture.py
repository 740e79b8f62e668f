"""What stands in the pen besides animals: where it is, where an animal goes to use it, and how it looks from above."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from datamodules.pen.camera import Camera, Points
from datamodules.pen.config import PenConfig

TROUGH_LENGTH_M, TROUGH_DEPTH_M, TROUGH_HEIGHT_M = 1.30, 0.30, 0.22
HOPPER_RADIUS_M = 0.27
DRINKER_RADIUS_M, DRINKER_HEIGHT_M = 0.10, 0.22
TOY_RADIUS_M, TOY_HEIGHT_M, CHAIN_TOP_M = 0.10, 0.40, 2.0


@dataclass(frozen=True)
class Place:
    """Where one animal's snout goes, and a point in the open from which it gets there.

    Args:
        nose: (x, y) of the snout in metres.
        approach: (x, y) of the snout before the last steps.
    """

    nose: tuple[float, float]
    approach: tuple[float, float]


@dataclass(frozen=True)
class Furniture:
    """The feeder at the middle of the lower wall, a drinker near each lower corner, the toy near the upper wall.

    Args:
        feeder: Centre (x, y) of the feeder in metres.
        drinkers: Centres of the drinkers.
        toy: Where the toy hangs at rest.
        feeder_places: One per animal that can eat at a time.
        drinker_places: One per drinker.
        hopper: Whether the feeder is round.
    """

    feeder: tuple[float, float]
    drinkers: tuple[tuple[float, float], ...]
    toy: tuple[float, float]
    feeder_places: tuple[Place, ...]
    drinker_places: tuple[Place, ...]
    hopper: bool

    @classmethod
    def of(cls, config: PenConfig) -> Self:
        """Set up the pen of `config`."""
        bottom, right = config.pen_width_m / 2, config.pen_length_m / 2
        hopper = config.furniture == "hopper"
        places = []
        if hopper:
            feeder = (0.0, bottom - HOPPER_RADIUS_M - 0.08)
            for angle in np.deg2rad((-165, -120, -60, -15)):
                side = np.array((np.cos(angle), np.sin(angle)))
                nose = np.array(feeder) + side * HOPPER_RADIUS_M * 0.75
                places.append(_place(nose, nose + side * (0.75, 0.55)))
        else:
            feeder = (0.0, bottom - TROUGH_DEPTH_M / 2)
            for x in np.linspace(-0.375, 0.375, 4) * TROUGH_LENGTH_M:
                nose = np.array((x, feeder[1]))
                places.append(_place(nose, nose + np.array((0.35 * x, -0.55))))
        drinkers = tuple((sign * (right - 0.45), bottom - DRINKER_RADIUS_M - 0.02) for sign in (-1, 1))
        drinker_places = tuple(
            _place(np.array(xy), np.array(xy) + np.array((-0.25 * np.sign(xy[0]), -0.5))) for xy in drinkers
        )
        return cls(feeder, drinkers, (0.0, 0.42 - bottom), tuple(places), drinker_places, hopper)

    def feeder_outline(self, camera: Camera) -> Points:
        """Corners of the feeder in pixels, (n, 2): the hull of its foot and its rim."""
        if self.hopper:
            return np.concatenate([circle(camera, self.feeder, HOPPER_RADIUS_M, z) for z in (0.0, TROUGH_HEIGHT_M)])
        return np.concatenate([trough_ring(camera, self.feeder, z) for z in (0.0, TROUGH_HEIGHT_M)])

    def toy_outline(self, camera: Camera, swing: tuple[float, float]) -> Points:
        """The toy in pixels, moved by `swing` metres from its rest."""
        x, y = self.toy[0] + swing[0], self.toy[1] + swing[1]
        return circle(camera, (x, y), TOY_RADIUS_M, TOY_HEIGHT_M)


def circle(camera: Camera, centre: tuple[float, float], radius_m: float, z: float) -> Points:
    """A horizontal circle of 24 corners in pixels."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    x, y = centre[0] + radius_m * np.cos(angle), centre[1] + radius_m * np.sin(angle)
    return camera.project(np.stack((x, y, np.full_like(x, z)), axis=1))


def trough_ring(camera: Camera, centre: tuple[float, float], z: float, shrink_m: float = 0.0) -> Points:
    """The trough's rectangle at height `z` in pixels, smaller by `shrink_m` on each side."""
    x, y = TROUGH_LENGTH_M / 2 - shrink_m, TROUGH_DEPTH_M / 2 - shrink_m
    corners = [(centre[0] + sx * x, centre[1] + sy * y, z) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return camera.project(np.array(corners))


def _place(nose: Points, approach: Points) -> Place:
    return Place((float(nose[0]), float(nose[1])), (float(approach[0]), float(approach[1])))
