"""Weights on disk, read with care: no pickled code is run, and keys and shapes must fit exactly."""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pl_distill.errors import CheckpointError

# ZeRO-1 and 2 write the first name, ZeRO-3 the second; both carry Lightning's part of the checkpoint.
DEEPSPEED_STATES = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a training checkpoint, one of Lightning's files.

    Tensors are mapped from the file and read when they are used.

    Raises:
        CheckpointError: The file is damaged or no checkpoint.
    """
    fix = "Check that the file is whole."
    if not zipfile.is_zipfile(path):
        raise CheckpointError(path, "cannot be read (no archive, or cut off)", "a checkpoint of `pl-distill fit`", fix)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, ... by what the bytes are
        found = f"cannot be read ({str(error).splitlines()[0]})" if str(error) else "cannot be read"
        raise CheckpointError(path, found, "a checkpoint of `pl-distill fit`", fix) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        kind = type(checkpoint).__name__
        held = f"{kind} of {', '.join(sorted(map(str, checkpoint))[:8])}" if isinstance(checkpoint, dict) else kind
        raise CheckpointError(path, f"holds a {held}, but no state_dict", "a checkpoint of `pl-distill fit`", fix)
    return checkpoint


def find_deepspeed_states(path: Path) -> Path:
    """Return the file with Lightning's part of a DeepSpeed checkpoint, which is a directory.

    Raises:
        CheckpointError: The directory has none.
    """
    for name in DEEPSPEED_STATES:
        if (path / "checkpoint" / name).is_file():
            return path / "checkpoint" / name
    names = " or ".join(f"checkpoint/{name}" for name in DEEPSPEED_STATES)
    raise CheckpointError(path, "holds no model states", names, "Check that the directory is whole.")


def check_fit(module: nn.Module, tensors: Mapping[str, Any], source: str | Path) -> None:
    """See that tensors have every key of a module, no other, its shapes, and floats where it has floats.

    Raises:
        CheckpointError: Names the first keys, shapes or kinds that differ.
    """
    expected = module.state_dict()
    missing = [key for key in expected if key not in tensors]
    surplus = [key for key in tensors if key not in expected]
    shapes = [key for key in expected if key in tensors and _shape(expected[key]) != _shape(tensors[key])]
    problems = [f"lacks {_first(missing)}"] if missing else []
    problems += [f"has the unknown {_first(surplus)}"] if surplus else []
    if shapes:
        found = [f"{key} {_shape(tensors[key])} instead of {_shape(expected[key])}" for key in shapes[:3]]
        problems.append(f"has other shapes ({len(shapes)} in all): {', '.join(found)}")
    kinds = [
        key
        for key in expected
        if isinstance(tensors.get(key), Tensor)
        and tensors[key].is_floating_point() != expected[key].is_floating_point()
    ]
    if kinds:
        found = [f"{key} {tensors[key].dtype} instead of {expected[key].dtype}" for key in kinds[:3]]
        problems.append(f"has other kinds of numbers ({len(kinds)} in all): {', '.join(found)}")
    if problems:
        wanted = f"exactly the {len(expected)} tensors of this {type(module).__name__}"
        fix = "Use weights of the same architecture, or give the architecture of these weights."
        raise CheckpointError(source, "; ".join(problems), wanted, fix)


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Load every key, no more and no less.

    Raises:
        CheckpointError: As for `check_fit`, or a weight is not finite.
    """
    check_fit(module, tensors, source)
    check_finite(tensors.items(), source)
    module.load_state_dict(tensors, strict=True)


def check_finite(weights: Iterable[tuple[str, Tensor]], source: str | Path) -> None:
    """See that no weight is NaN or infinite: a network answers that with silence, or fails frames later.

    Raises:
        CheckpointError: Names the first that are.
    """
    wrong = [key for key, tensor in weights if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wrong:
        fix = "Take a checkpoint from before the training went wrong, or copy the file again."
        raise CheckpointError(source, f"has NaN or infinity in {_first(wrong)}", "finite weights", fix)


def _shape(tensor: Any) -> tuple[int, ...] | None:
    return tuple(tensor.shape) if isinstance(tensor, Tensor) else None


def _first(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
