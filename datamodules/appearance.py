"""Changes of colour and sharpness, for the student's picture alone: no pixel moves, so the teacher's map stays right.

albumentations 2.0.8 is the last release under the MIT licence; its successor is AGPL.
"""

import os
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from datamodules.clip import Image
from datamodules.errors import UserError


@dataclass(frozen=True)
class Appearance:
    """Random light, colour and blur.

    Args:
        brightness: Largest relative change, 0 to 1.
        contrast: Largest relative change, 0 to 1.
        saturation: Largest relative change, 0 to 1.
        hue: Largest change, as a part of the colour circle, 0 to 0.5.
        blur: Part of the pictures that are blurred, 0 to 1.
        probability: Part of the pictures whose colours change, 0 to 1.

    Raises:
        UserError: A number is out of its range.
    """

    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.05
    blur: float = 0.1
    probability: float = 0.8

    def __post_init__(self) -> None:
        for name in (one.name for one in fields(self)):
            value, highest = getattr(self, name), 0.5 if name == "hue" else 1.0
            if not 0 <= value <= highest:
                raise UserError(f"appearance.{name}", f"is {value}", f"0 to {highest}", "Correct the recipe.")

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Change an RGB picture (H, W, 3) uint8; what is drawn depends on `rng` alone."""
        for transform in self._pipeline.transforms:  # the pipeline's own seeding gives all of them one and the same
            transform.set_random_seed(int(rng.integers(2**31)))
        changed: Image = self._pipeline(image=image)["image"]
        return changed

    @cached_property
    def _pipeline(self) -> Any:
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or it asks PyPI for a newer version when it is imported
        import albumentations  # seconds; only for those who augment

        colours = albumentations.ColorJitter(
            brightness=(1 - self.brightness, 1 + self.brightness),
            contrast=(1 - self.contrast, 1 + self.contrast),
            saturation=(1 - self.saturation, 1 + self.saturation),
            hue=(-self.hue, self.hue),
            p=self.probability,
        )
        return albumentations.Compose([colours, albumentations.GaussianBlur(sigma_limit=(0.5, 2.0), p=self.blur)])

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}  # a worker builds its own pipeline
