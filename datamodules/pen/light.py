"""The light in the pen and the camera's sensor: a tint on every colour, a fall-off towards the borders, noise."""

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clip import Image
from datamodules.pen.config import PenConfig
from datamodules.pen.seeds import generator

_WARM = np.array((0.16, 0.0, -0.30))  # change of red, green and blue at warmth 1
_MARGIN = 64  # pixels by which the bank of noise is larger than a picture
TOWARDS_LIGHT = np.array((-0.34, -0.42, 0.84))
"""Direction to the lamp: x along the pen, y across it, z up; unit length."""


class Light:
    """Tints colours, darkens borders, adds the sensor's noise.

    Args:
        config: The domain.
        seed: Decides the noise.
    """

    def __init__(self, config: PenConfig, seed: int) -> None:
        self.tint = config.brightness * (1 + config.warmth * _WARM)
        rows, columns = np.mgrid[0 : config.height, 0 : config.width]
        x, y = columns / config.width - 0.42, (rows - config.height / 2) / config.width
        fall_off = 1.04 - 0.62 * (x * x + 1.4 * y * y)
        self._fall_off = cv2.merge([(255 * np.clip(fall_off, 0, 1)).astype(np.uint8)] * 3)
        self._shape = (config.height, config.width)
        self._bright, self._dark = self._noise(config, generator(seed, "sensor"))
        self._seed = seed

    def colour(
        self, colour: tuple[float, float, float] | NDArray[np.float64], factor: float = 1.0
    ) -> tuple[float, ...]:
        """Show an RGB colour under this light."""
        return tuple(float(value) for value in np.clip(np.asarray(colour) * self.tint * factor, 0, 255))

    def shade(self, image: Image) -> Image:
        """Darken a picture towards its borders, in place."""
        return np.asarray(cv2.multiply(image, self._fall_off, dst=image, scale=1 / 255), np.uint8)

    def expose(self, image: Image, index: int, clip: str) -> Image:
        """Shade a picture and add the sensor's noise, in place; the noise differs from frame to frame."""
        self.shade(image)
        if self._bright is None or self._dark is None:
            return image
        height, width = self._shape
        rng = generator(self._seed, clip, "noise", index)
        top, left = (int(value) for value in rng.integers(0, _MARGIN, 2))
        window = np.s_[top : top + height, left : left + width]
        cv2.add(image, self._bright[window], dst=image)
        cv2.subtract(image, self._dark[window], dst=image)
        return image

    def _noise(self, config: PenConfig, rng: np.random.Generator) -> tuple[Image | None, Image | None]:
        """Positive and negative part of the noise apart: OpenCV then adds in bytes."""
        if config.noise == 0:
            return None, None
        shape = (config.height + _MARGIN, config.width + _MARGIN)
        grey = rng.normal(0, 0.8 * config.noise, (*shape, 1)).astype(np.float32)
        colour = cv2.GaussianBlur(rng.normal(0, 1.2 * config.noise, (*shape, 3)).astype(np.float32), (0, 0), 0.8)
        noise = np.rint(grey + colour)
        return np.maximum(noise, 0).astype(np.uint8), np.maximum(-noise, 0).astype(np.uint8)
