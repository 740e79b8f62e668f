"""The files of an embedder: those of a DINOv3 of transformers, and beside them how to cut out, and a head."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import nn

from datamodules.crops import Cropping
from datamodules.files import atomic_directory, write_json
from pl_distill.errors import CheckpointError
from pl_distill.models.dinov3 import IMAGENET_MEAN, IMAGENET_STD
from pl_distill.models.sam3_source import find_cached, quiet_transformers

PREPROCESSOR, CROPPING, HEAD = "preprocessor_config.json", "cropping.json", "head.safetensors"


def save_embedder(
    model: Any,
    folder: Path,
    image_size: int,
    cropping: Cropping,
    head: nn.Linear | None = None,
    *,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a DINOv3 of transformers, its preprocessing and its cropping as `load_embedder` reads them.

    Args:
        model: The network; left as it is.
        folder: Is made, or replaced as a whole.
        image_size: Side of the pictures that it was trained on.
        cropping: How animals are cut out for it.
        head: Of the patch tokens, if it has one.
        dtype: Of the stored weights.
    """
    weights = {name: tensor.detach().to("cpu", dtype) for name, tensor in model.state_dict().items()}
    preprocessing = {
        "image_processor_type": "DINOv3ViTImageProcessor",  # of both kinds
        "do_resize": True,
        "size": {"height": image_size, "width": image_size},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }
    with atomic_directory(folder, replace=True) as partial:
        with quiet_transformers():
            model.save_pretrained(partial, state_dict=weights)
        if head is not None:
            tensors = {
                name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in head.state_dict().items()
            }
            save_file(tensors, partial / HEAD, metadata={"format": "pt"})
        write_json(partial / PREPROCESSOR, preprocessing)
        write_json(partial / CROPPING, asdict(cropping))


def read_cropping(name: str) -> Cropping:
    """Read how animals are cut out for an embedder; the default where nothing says so."""
    stored = {} if (found := read_json(name, CROPPING)) is None else found
    try:
        cropping = Cropping(**stored)
        numbers = (cropping.margin, cropping.blank_background)
        if not all(map(_is_number, numbers)) or type(cropping.align) is not bool:
            raise TypeError(f"found {stored}")
    except TypeError as error:
        expected = "numbers margin and blank_background, and align true or false"
        raise CheckpointError(
            f"{name}/{CROPPING}", f"is not understood ({error})", expected, "Copy it again."
        ) from error
    return cropping


def read_preprocessing(
    name: str, image_size: int
) -> tuple[int, tuple[float, float, float], tuple[float, float, float]]:
    """Read the side of an embedder's pictures, and mean and standard deviation of their three channels.

    Args:
        name: Folder or hub name of the embedder.
        image_size: The side where nothing says so.
    """
    stored = read_json(name, PREPROCESSOR) or {}
    size = stored.get("size") or {}
    side = size.get("height", image_size) if isinstance(size, dict) else size
    channels = [stored.get("image_mean", list(IMAGENET_MEAN)), stored.get("image_std", list(IMAGENET_STD))]
    if type(side) is not int or side <= 0 or not all(map(_is_triple, channels)) or not all(channels[1]):
        raise CheckpointError(
            f"{name}/{PREPROCESSOR}",
            f"says size {stored.get('size')!r}, image_mean {channels[0]!r} and image_std {channels[1]!r}",
            "a side in pixels, and three numbers each, those of image_std not 0",
            "Copy it again.",
        )
    mean, std = (cast(tuple[float, float, float], tuple(map(float, channel))) for channel in channels)
    return side, mean, std


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def read_json(name: str, file: str) -> dict[str, Any] | None:
    """Read a JSON object beside an embedder; None where the file is not there."""
    found = find_file(name, file)
    if found is None:
        return None
    try:
        content = json.loads(found.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(f"{name}/{file}", error) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{name}/{file}", "is no JSON object", "keys and values", "Copy it again.")
    return content


def find_file(name: str, file: str) -> Path | None:
    """Find a file of a folder or of a repository of the hub; None where it is not there."""
    try:
        return find_cached(name, file)
    except OSError as error:
        raise unreadable(f"{name}/{file}", error) from error


def unreadable(name: str, error: Exception) -> CheckpointError:
    """Make the error of an embedder that cannot be loaded."""
    first = " ".join(str(error).split())[:300] or type(error).__name__
    fix = "Give the name of another, or a folder; a gated repository needs `hf auth login`."
    return CheckpointError(name, f"cannot be loaded: {first}", "a DINOv3 vision transformer", fix)
