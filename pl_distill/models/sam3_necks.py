"""Both of SAM 3's necks apart from the rest: the trunk's map in, the pyramids of detector and tracker out.

Source: transformers, models/sam3/modeling_sam3.py (`Sam3VisionNeck`); `Sam3VideoModel` holds two of them on one trunk.
What differs: the levels that are read downstream are computed (strides 4, 8, 16 of a 16-pixel cell), the half-size
level, which every caller drops, and the position encodings, which do not depend on the map, are not.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import Sam3VideoConfig
from transformers.models.sam3.modeling_sam3 import Sam3VisionNeck

from pl_distill.errors import CheckpointError
from pl_distill.models.checkpoints import check_finite
from pl_distill.models.sam3_load import load_config
from pl_distill.models.sam3_source import weight_files

LEVELS = 3
DETECTOR_NECK = "detector_model.vision_encoder.neck."
TRACKER_NECK = "tracker_neck."


class Pyramids(NamedTuple):
    """Three levels each, high to low resolution: (B, 256, 4h, 4w), (B, 256, 2h, 2w), (B, 256, h, w)."""

    detector: tuple[Tensor, Tensor, Tensor]
    tracker: tuple[Tensor, Tensor, Tensor]


class Necks(nn.Module):
    """Both necks of a SAM 3, whole: what a student may keep, fine-tune and give to `substitute`.

    Args:
        config: The model that they belong to.
    """

    def __init__(self, config: Sam3VideoConfig) -> None:
        super().__init__()
        self.detector_neck = Sam3VisionNeck(config.detector_config.vision_config)
        self.tracker_neck = Sam3VisionNeck(config.detector_config.vision_config)

    def forward(self, trunk_map: Tensor) -> Pyramids:
        """Map the trunk's (B, C, h, w) to both pyramids."""
        return Pyramids(_levels(self.detector_neck, trunk_map), _levels(self.tracker_neck, trunk_map))


def load_necks(source: str | Path, *, dtype: torch.dtype = torch.float32) -> Necks:
    """Load both necks frozen, in eval mode, reading their tensors and nothing else.

    Args:
        source: A folder or hub name, as for `load_sam3`.
        dtype: Of every weight.

    Raises:
        CheckpointError: A tensor is missing, has another shape than the configuration says, or is not finite.
    """
    files = weight_files(source)
    with torch.device("meta"):
        necks = Necks(load_config(source))
    weights: dict[str, Tensor] = {}
    for name, expected in necks.state_dict().items():
        key = name.replace("detector_neck.", DETECTOR_NECK).replace("tracker_neck.", TRACKER_NECK)
        if key not in files:
            raise CheckpointError(
                source, f"lacks {key}", "both necks of a SAM 3 video model", "Give the folder of a whole teacher."
            )
        with safe_open(files[key], framework="pt") as file:
            tensor = file.get_tensor(key)
        if tensor.shape != expected.shape:
            raise CheckpointError(
                files[key],
                f"holds {key} with shape {tuple(tensor.shape)}",
                f"shape {tuple(expected.shape)} as config.json says",
                "Give the folder with the matching config.json.",
            )
        weights[name] = tensor.to(dtype)
    check_finite(weights.items(), source)
    necks.load_state_dict(weights, strict=True, assign=True)
    return necks.requires_grad_(False).eval()


def _levels(neck: Any, trunk_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    high, middle, low = (layer(trunk_map) for layer in neck.fpn_layers[:LEVELS])
    return high, middle, low
