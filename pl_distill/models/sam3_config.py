"""What a SAM 3 configuration says about shapes, and the configurations that we ship: tiny, pen, real.

Source: transformers, models/sam3_video/configuration_sam3_video.py. Ours are its keyword arguments as YAML, and
`meta_sam3` builds the whole model from them without allocating a weight.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import Sam3VideoConfig, Sam3VideoModel

from datamodules.recipes import shipped_recipes
from pl_distill.errors import ConfigError


@dataclass(frozen=True)
class Sam3Geometry:
    """The shapes that a student, a cache and a data module must agree on.

    Args:
        image_size: Side of the square input in pixels.
        patch_size: Pixels per cell of the trunk's grid.
        grid: Cells per side of the trunk's map.
        trunk_channels: Channels of the trunk's map.
        neck_channels: Channels of every level of both pyramids.
        mask_size: Side of the masks that detector and tracker give, in pixels.
    """

    image_size: int
    patch_size: int
    grid: int
    trunk_channels: int
    neck_channels: int
    mask_size: int

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of the trunk's map of one picture."""
        return self.trunk_channels, self.grid, self.grid

    @classmethod
    def of(cls, config: Sam3VideoConfig) -> "Sam3Geometry":
        """Read the shapes out of a model's configuration."""
        vision = config.detector_config.vision_config
        trunk = vision.backbone_config
        return cls(
            image_size=trunk.image_size,
            patch_size=trunk.patch_size,
            grid=trunk.image_size // trunk.patch_size,
            trunk_channels=trunk.hidden_size,
            neck_channels=vision.fpn_hidden_size,
            mask_size=config.low_res_mask_size,
        )


def shipped_configs() -> list[str]:
    """Return the names that `load_sam3_config` knows."""
    return list(shipped_recipes("sam3"))


def load_sam3_config(name_or_path: str | Path) -> Sam3VideoConfig:
    """Read a SAM 3 configuration.

    Args:
        name_or_path: ``tiny``, ``pen``, ``real``, or a YAML file with `Sam3VideoConfig`'s keyword arguments; what it
            leaves out has transformers' default.

    Raises:
        ConfigError: The name is unknown, or the file is not such a configuration.
    """
    data = _read(name_or_path)
    try:
        content = yaml.safe_load(data)
        known = set(Sam3VideoConfig().to_dict())
        if not isinstance(content, dict) or not set(content) <= known:
            odd = sorted(set(content) - known) if isinstance(content, dict) else [type(content).__name__]
            raise ConfigError(name_or_path, f"has {odd}", "keys of Sam3VideoConfig", "Correct or remove them.")
        return Sam3VideoConfig(**content)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            name_or_path,
            f"is refused by transformers: {error}",
            "keyword arguments of Sam3VideoConfig with a model_type in each part",
            "Start from configs/sam3/tiny.yaml.",
        ) from error


def meta_sam3(config: Sam3VideoConfig) -> Any:
    """Build a whole `Sam3VideoModel` on the meta device: names, shapes and counts, but no memory."""
    with torch.device("meta"):
        return Sam3VideoModel(config)


def _read(name_or_path: str | Path) -> bytes:
    shipped = shipped_recipes("sam3")
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)].read_bytes()
    path = Path(name_or_path)
    if not path.is_file():
        raise ConfigError(
            name_or_path, "is no file", f"a YAML file or one of {', '.join(shipped)}", "Correct the name."
        )
    return path.read_bytes()
