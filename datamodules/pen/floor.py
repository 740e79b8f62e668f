"""The ground of the pen as a flat picture in metres: concrete, slats, wet places, dung, paper and straw."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clip import Image
from datamodules.pen.camera import Points
from datamodules.pen.config import PenConfig
from datamodules.pen.furniture import Furniture

_CONCRETE, _PLASTIC = (148, 140, 128), (136, 148, 150)
_STRAW = ((214, 186, 112), (196, 164, 92), (226, 202, 138), (172, 140, 78), (206, 178, 120), (150, 122, 70))
_SLATS_FROM = 0.30  # of the pen's half length: right of it the floor of a part slatted pen is slatted


@dataclass(frozen=True)
class Ground:
    """A picture of the floor plan.

    Args:
        image: RGB, rows across the pen, columns along it.
        origin_m: (x, y) of the corner of pixel (0, 0) in metres.
        pixels_per_m: Its resolution.
    """

    image: Image
    origin_m: tuple[float, float]
    pixels_per_m: float

    def to_pixels(self, points_m: Points) -> Points:
        """Map places (..., 2) in metres to (column, row)."""
        pixels: Points = (points_m - np.array(self.origin_m)) * self.pixels_per_m
        return pixels


def draw_ground(config: PenConfig, furniture: Furniture, pixels_per_m: float, rng: np.random.Generator) -> Ground:
    """Draw the floor inside the walls."""
    size = (config.pen_length_m, config.pen_width_m)
    width, height = (int(np.ceil(side * pixels_per_m)) for side in size)
    plane = concrete(width, height, pixels_per_m, _CONCRETE if config.floor == "part_slatted" else _PLASTIC, rng)
    ground = Ground(plane, (-size[0] / 2, -size[1] / 2), pixels_per_m)
    if config.floor == "part_slatted":
        _cut_slats(plane, int(width * (0.5 + _SLATS_FROM / 2)), 0.095 * pixels_per_m)
    else:
        _punch_slots(plane, pixels_per_m)
    _soil(ground, config, furniture, rng)
    _strew(ground, config, rng)
    return ground


def concrete(
    width: int, height: int, pixels_per_m: float, colour: tuple[int, int, int], rng: np.random.Generator
) -> Image:
    """A rough, blotched surface."""
    tone = np.zeros((height, width), np.float32)
    for size_m, strength in ((0.5, 7.0), (0.12, 5.0), (0.02, 4.0)):
        tone += strength * _cloud(width, height, size_m * pixels_per_m, rng)
    tone += rng.normal(0, 2.0, (height, width)).astype(np.float32)
    return np.asarray(np.clip(np.array(colour, np.float32) + tone[..., None], 0, 255), np.uint8)


def _cloud(width: int, height: int, size_px: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise of mean 0 and deviation 1 with features of `size_px` pixels."""
    step = max(1.0, size_px / 3)
    coarse = rng.normal(0, 1, (int(height / step) + 4, int(width / step) + 4)).astype(np.float32)
    full = cv2.resize(cv2.GaussianBlur(coarse, (0, 0), 1.2), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray((full - full.mean()) / (full.std() + 1e-6), np.float32)


def _cut_slats(plane: Image, start: int, period_px: float) -> None:
    """Dark gaps between concrete beams that run across the pen, and the beam's worn, lighter edge beside each."""
    columns = np.arange(plane.shape[1] - start) / period_px % 1.0
    factor = np.where(columns < 0.22, 0.30, np.where(columns < 0.32, 1.10, 1.0)).astype(np.float32)
    smooth = cv2.GaussianBlur(factor[None], (0, 0), max(0.3, period_px * 0.04))
    area = plane[:, start:]
    area[:] = np.clip(area * smooth[..., None], 0, 255).astype(np.uint8)
    for row in np.linspace(0, plane.shape[0], 4)[1:-1]:  # the beams end here
        cv2.line(plane, (start, int(row)), (plane.shape[1], int(row)), (118, 112, 102), max(1, int(period_px * 0.2)))


def _punch_slots(plane: Image, pixels_per_m: float) -> None:
    """Rows of oblong slots in plastic panels."""
    height, width = plane.shape[:2]
    x = np.arange(width) / pixels_per_m
    y = np.arange(height) / pixels_per_m
    across = np.minimum((y % 0.055) / 0.055, 1)[:, None]
    shifted = (x[None] + 0.11 * (np.floor(y / 0.055) % 2)[:, None]) % 0.22
    sharp = ((across > 0.25) & (across < 0.62) & (shifted > 0.03)).astype(np.float32)
    seam = ((x[None] % 1.2 < 0.012) | (y[:, None] % 0.6 < 0.012)).astype(np.float32)
    slot = cv2.GaussianBlur(sharp, (0, 0), max(0.3, 0.004 * pixels_per_m))
    plane[:] = np.clip(plane * (1 - 0.50 * slot - 0.25 * seam * (1 - slot))[..., None], 0, 255).astype(np.uint8)


def _soil(ground: Ground, config: PenConfig, furniture: Furniture, rng: np.random.Generator) -> None:
    """Water below the drinkers, feed at the feeder, dung on the right half, scraps of paper."""
    plane, scale = ground.image, ground.pixels_per_m
    height, width = plane.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / scale
    rough = 0.10 * _cloud(width, height, 0.35 * scale, rng)

    def blend(cover: NDArray[np.float32], colour: tuple[int, int, int]) -> None:
        plane[:] = (plane + np.clip(cover, 0, 1)[..., None] * (np.array(colour, np.float32) - plane)).astype(np.uint8)

    for drinker in furniture.drinkers:
        x, y = np.array(drinker) - ground.origin_m
        blend(0.5 * np.clip((0.48 - np.hypot(columns - x, rows - y) + rough) / 0.10, 0, 1), (70, 66, 60))
    x, y = np.array(furniture.feeder) - ground.origin_m
    crumbs = 0.35 * np.clip((0.75 - np.hypot((columns - x) / 1.5, rows - y) + rough) / 0.35, 0, 1)
    blend(crumbs * (_cloud(width, height, 0.02 * scale, rng) > 0.6), (188, 160, 112))
    dung = _cloud(width, height, 0.30 * scale, rng) + 0.8 * columns / config.pen_length_m - 0.4
    blend(0.62 * np.clip((dung - 1.15) / 0.35, 0, 1), (82, 68, 50))
    traffic = 0.16 * np.clip(_cloud(width, height, 0.9 * scale, rng), 0, 1)
    blend(traffic, (104, 92, 76))
    for _ in range(int(1.6 * config.pen_length_m * config.pen_width_m)):
        middle, angle = rng.uniform(0, 1, 2) * (width, height), rng.uniform(0, np.pi)
        corners = np.array(((-1, -0.7), (1, -0.5), (0.8, 0.7), (-0.9, 0.6))) * rng.uniform(0.012, 0.035) * scale
        turn = np.array(((np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))))
        grey = int(rng.integers(176, 222))
        cv2.fillPoly(plane, [_fine(corners @ turn + middle)], (grey, grey, grey - 6), cv2.LINE_AA, 4)


def _strew(ground: Ground, config: PenConfig, rng: np.random.Generator) -> None:
    """Stalks of straw, thicker on the solid floor and in heaps."""
    plane, scale = ground.image, ground.pixels_per_m
    height, width = plane.shape[:2]
    count = int(config.straw_per_m2 * config.pen_length_m * config.pen_width_m)
    if not count:
        return
    heaps = _cloud(width, height, 0.7 * scale, rng)
    deep = min(1.0, config.straw_per_m2 / 1000)  # deep litter covers everything, little straw lies in heaps
    middles = rng.uniform(0, 1, (3 * count, 2)) * (width, height)
    column, row = np.clip(middles.astype(int), 0, (width - 1, height - 1)).T
    liking = 0.30 + 0.55 * heaps[row, column] - 0.6 * (column / width - 0.5)
    keep = rng.uniform(0, 1, len(middles)) < np.clip(deep + (1 - deep) * liking, 0, 1)
    middles = middles[keep][:count]
    if deep > 0.5:
        litter = concrete(width, height, scale, (166, 138, 84), rng)
        plane[:] = cv2.addWeighted(plane, 1 - 0.8 * deep, litter, 0.8 * deep, 0)
    angles = rng.uniform(0, 2 * np.pi, len(middles))
    half = rng.gamma(4.0, 0.022, len(middles)) * scale
    kinks = rng.normal(0, 0.12, len(middles))
    shades = rng.integers(0, len(_STRAW), len(middles))
    dims = rng.uniform(0.62, 1.05, len(middles))
    thickness = max(1, round(0.008 * scale))
    for middle, angle, reach, kink, shade, dim in zip(middles, angles, half, kinks, shades, dims, strict=True):
        along = np.array((np.cos(angle), np.sin(angle)))
        bow = middle + kink * reach * np.array((-along[1], along[0]))
        line = _fine(np.array((middle - reach * along, bow, middle + reach * along)))
        cv2.polylines(plane, [line + np.array((10, 16), np.int32)], False, (70, 60, 44), thickness, cv2.LINE_AA, 4)
        cv2.polylines(plane, [line], False, tuple(int(dim * part) for part in _STRAW[shade]), thickness, cv2.LINE_AA, 4)


def _fine(points: Points) -> NDArray[np.int32]:
    return np.rint(points * 16).astype(np.int32)
