"""How crops of animals differ from step to step: moved, turned, in other light, with noise and dirt."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.crops import BLANK, fade


@dataclass(frozen=True)
class CropVariety:
    """How crops differ from step to step. Mirror images are other animals and are not drawn.

    Args:
        blank: Range of how far the background fades.
        zoom: Range of the factor on the crop's side; above 1 the square is wider.
        shift: Largest shift, as a part of the side.
        turn_deg: Largest turn to either side.
        reverse: Part of the crops that are turned by half a circle, too: masks do not always tell the ends apart.
        gain: Range of the factor on brightness.
        tint: Largest relative change of a single colour.
        noise: Largest standard deviation of noise, in grey levels.
        stains: Most stains of dirt.
    """

    blank: tuple[float, float] = (0.4, 1.0)
    zoom: tuple[float, float] = (0.9, 1.15)
    shift: float = 0.04
    turn_deg: float = 12.0
    reverse: float = 0.1
    gain: tuple[float, float] = (0.55, 1.25)
    tint: float = 0.08
    noise: float = 5.0
    stains: int = 3


def vary(layers: NDArray[np.uint8], variety: CropVariety, rng: np.random.Generator) -> tuple[NDArray[np.uint8], float]:
    """Give a varied crop (S, S, 3) of a stored one (S, S, 4), and by how many degrees it was turned, clockwise."""
    size = layers.shape[0]
    turn = rng.uniform(-variety.turn_deg, variety.turn_deg) + 180.0 * bool(rng.random() < variety.reverse)
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), turn, 1 / rng.uniform(*variety.zoom))
    matrix[:, 2] += rng.uniform(-variety.shift, variety.shift, 2) * size
    moved = np.asarray(cv2.warpAffine(layers, matrix, (size, size), borderValue=(*BLANK, 0)), np.uint8)
    picture, mask = moved[..., :3].astype(np.float32), moved[..., 3:]
    for _ in range(int(rng.integers(variety.stains + 1))):
        _stain(picture, rng)
    gains = rng.uniform(*variety.gain) * rng.uniform(1 - variety.tint, 1 + variety.tint, 3)
    picture = picture * gains.astype(np.float32)
    picture += rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(0, variety.noise))
    blank = rng.uniform(*variety.blank)
    return fade(np.clip(picture, 0, 255).astype(np.uint8), mask, float(blank)), -turn


def _stain(picture: NDArray[np.float32], rng: np.random.Generator) -> None:
    """A soft brown ellipse, in place."""
    size = picture.shape[0]
    cover = np.zeros((size, size), np.float32)
    centre = tuple(int(value) for value in rng.uniform(0.1, 0.9, 2) * size)
    axes = tuple(max(1, int(value)) for value in rng.uniform(0.02, 0.10, 2) * size)
    cv2.ellipse(cover, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0.2, 0.7)), -1)
    soft = np.asarray(cv2.GaussianBlur(cover, (0, 0), size / 60), np.float32)
    picture += soft[..., None] * (np.array((74, 60, 46), np.float32) - picture)
