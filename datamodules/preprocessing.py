"""From an RGB picture to the model's input, as SAM 3's own processor does it, without a tokenizer beside it.

Source: transformers, models/sam3/image_processing_sam3.py: squash to a square, bilinear with antialiasing on uint8,
then scale and normalise. A test holds it equal to that processor, bit for bit.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from datamodules.clip import Image
from datamodules.errors import CacheError


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a picture before the network sees it; part of the identity of a feature cache.

    Args:
        size: Side of the square input in pixels; the picture is squashed, its aspect ratio is not kept.
        mean: Per channel, of pixels scaled to 0-1. SAM 3 uses 0.5, not ImageNet's values.
        std: Per channel, of pixels scaled to 0-1.
    """

    size: int = 1008
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __call__(self, image: Image) -> Tensor:
        """Map an RGB picture (H, W, 3) uint8 to (3, size, size) float32."""
        # A view: resizing reads it as it lies, a copy in the other order first costs more than that. Same bits.
        resized = tvf.resize(torch.from_numpy(image).permute(2, 0, 1), [self.size, self.size], antialias=True)
        # The processor folds the scaling by 1/255 into mean and std; the same order keeps the result bit-identical.
        mean = torch.tensor(self.mean)[:, None, None] * 255.0
        std = torch.tensor(self.std)[:, None, None] * 255.0
        # Channels first from here: joined pictures of the other order would take other kernels of a network.
        pixels = resized.to(torch.float32, memory_format=torch.contiguous_format)
        normalised: Tensor = (pixels - mean) / std
        return normalised

    def describe(self) -> dict[str, Any]:
        """Return the values that a cache's manifest stores and compares."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), "resize": "squash-bilinear-antialias"}

    @classmethod
    def from_description(cls, description: Mapping[str, Any], where: str) -> "Preprocessing":
        """Undo `describe`.

        Raises:
            CacheError: The description, found in `where`, is of steps that this class does not do.
        """
        try:
            mean, std = tuple(description["mean"]), tuple(description["std"])
            found = cls(int(description["size"]), mean, std)
        except (KeyError, TypeError, ValueError) as error:
            raise _unknown(where, description) from error
        if found.describe() != dict(description):
            raise _unknown(where, description)
        return found


def _unknown(where: str, description: Mapping[str, Any]) -> CacheError:
    return CacheError(
        where,
        f"was made with the preprocessing {dict(description)}",
        f"values for {Preprocessing().describe()}",
        "Run `pl-distill predict` again with this version.",
    )
