"""Which trunk is it, and which SAM 3: hashes over tensors, from a loaded model or from the files alone."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from datamodules.files import sha256_of
from pl_distill.models.prompts import PROMPTS_FILE
from pl_distill.models.sam3_source import find_file, weight_files
from pl_distill.models.tensor_hash import tensors_sha256

TRUNK = "detector_model.vision_encoder.backbone."

_UNSEEN = (
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "window_size",
    "global_attn_indexes",
    "image_size",
    "pretrain_image_size",
    "rope_parameters",
)
"""Fields of a trunk's configuration that change its map and leave no trace in names and shapes of its tensors."""


def trunk_settings(config: Any) -> dict[str, Any]:
    """Return what a trunk computes beside what its tensors tell: the other half of `trunk_sha256`.

    Args:
        config: `Sam3VideoConfig`.
    """
    trunk = config.detector_config.vision_config.backbone_config.to_dict()
    found: dict[str, Any] = json.loads(json.dumps({name: trunk.get(name) for name in _UNSEEN}))
    return found


def trunk_sha256(model: Any) -> str:
    """Identify a trunk: SHA-256 over name, dtype, shape and bytes of its tensors, in the order of their names.

    The same weights in another dtype are another trunk: they give other maps.
    """
    return tensors_sha256(sorted(model.detector_model.vision_encoder.backbone.state_dict().items()))


def read_trunk_sha256(source: str | Path) -> str:
    """Return `trunk_sha256` of what `load_sam3` would load in float32, one tensor at a time: nothing stays in memory.

    Args:
        source: A folder or hub name, as for `load_sam3`.
    """
    files = weight_files(source)

    def tensors() -> Iterable[tuple[str, Tensor]]:
        for key in sorted(key for key in files if key.startswith(TRUNK)):
            with safe_open(files[key], framework="pt") as file:
                tensor = file.get_tensor(key)
            yield key.removeprefix(TRUNK), tensor.float() if tensor.is_floating_point() else tensor

    return tensors_sha256(tensors())


def read_sam3_sha256(source: str | Path) -> str:
    """Hash the files of a SAM 3: its configuration, all weights, its preprocessing and its stored prompts.

    Unlike `read_trunk_sha256` it tells models apart that share a trunk, but have other heads or thresholds.

    Args:
        source: A folder or hub name, as for `load_sam3`.
    """
    names = ("config.json", "preprocessor_config.json", "processor_config.json", PROMPTS_FILE)
    files = [find_file(source, name) for name in names]
    digest = hashlib.sha256()
    for path in sorted({*weight_files(source).values(), *filter(None, files)}, key=lambda path: path.name):
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()
