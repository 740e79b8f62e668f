"""Which trunk is it: one hash over its tensors, from a loaded model or from the files alone."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from pl_distill.models.sam3_source import weight_files

TRUNK = "detector_model.vision_encoder.backbone."


def trunk_sha256(model: Any) -> str:
    """Identify a trunk: SHA-256 over name, dtype, shape and bytes of its tensors, in the order of their names.

    The same weights in another dtype are another trunk: they give other maps.
    """
    return _sha256(sorted(model.detector_model.vision_encoder.backbone.state_dict().items()))


def read_trunk_sha256(source: str | Path, *, dtype: torch.dtype = torch.float32) -> str:
    """Return `trunk_sha256` of what `load_sam3` would load, one tensor at a time: nothing stays in memory.

    Args:
        source: A folder or hub name, as for `load_sam3`.
        dtype: Of the weights when loaded, whatever the file's.
    """
    files = weight_files(source)

    def tensors() -> Iterable[tuple[str, Tensor]]:
        for key in sorted(key for key in files if key.startswith(TRUNK)):
            with safe_open(files[key], framework="pt") as file:
                tensor = file.get_tensor(key)
            yield key.removeprefix(TRUNK), tensor.to(dtype) if tensor.is_floating_point() else tensor

    return _sha256(tensors())


def _sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # numpy knows no bfloat16: the bytes are what counts
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
