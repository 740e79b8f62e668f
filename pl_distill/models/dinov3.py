"""The networks of DINOv3 in their two spellings, of transformers and of timm: pictures in, all tokens out.

Source: facebookresearch/dinov3 (Siméoni et al. 2025). Of ViT-S/16 timm has 21,586,944 parameters; transformers keeps
the biases of query and value and the mask token that training left at or near 0, and has 21,596,544.
"""

from collections.abc import Mapping
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel, DINOv3ViTConfig, DINOv3ViTModel

FAMILY: Mapping[str, tuple[Any, Any]] = {
    "dinov3_vit": (DINOv3ViTConfig, DINOv3ViTModel),
    "dinov3_convnext": (DINOv3ConvNextConfig, DINOv3ConvNextModel),
}
"""What config.json calls the kinds of network that DINOv3 comes in, and their classes."""

TIMM_FAMILY = "dinov3"
IMAGENET_MEAN, IMAGENET_STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


class TransformersBackbone(nn.Module):
    """A `DINOv3ViTModel`, or a `DINOv3ConvNextModel`, whose class token is the mean of its map."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._skip = 1 + getattr(model.config, "num_register_tokens", 0)

    @property
    def dimension(self) -> int:
        """Length of a token."""
        config = self.model.config
        return int(config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map normalised images (N, 3, S, S) to class tokens (N, D) and patch tokens (N, h*w, D)."""
        tokens = self.model(images).last_hidden_state
        return tokens[:, 0], tokens[:, self._skip :]


class TimmBackbone(nn.Module):
    """A DINOv3 of timm (class `Eva`)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map normalised images (N, 3, S, S) to class tokens (N, D) and patch tokens (N, h*w, D)."""
        tokens = self.model.forward_features(images)
        return tokens[:, 0], tokens[:, self.model.num_prefix_tokens :]
