"""Principal axes of a teacher's maps, fitted once on a sample and kept as a file beside the cache's manifest."""

import hashlib
import json
import os
from bisect import bisect_left
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from datamodules.cache_manifest import CacheIdentity
from datamodules.errors import CacheError
from datamodules.files import sync_directory, temporary_path

BASIS = "basis.safetensors"
# What the worst frame of the sample must keep; the codec promises 0.99 of frames that were not in the sample.
TARGET = 0.991
_STEPS = [2 ** (1 - number / 16) for number in range(145)]  # of the step: 2 standard deviations down to 1/256


@dataclass(frozen=True)
class Basis:
    """An orthonormal basis of channel vectors that were centred and divided by their standard deviation.

    Args:
        mean: Per channel, (C,).
        std: Per channel, (C,), positive.
        axes: (C, C), one axis per row, those of the largest variance first.
        step: Of the integers along each axis, in standard deviations of a channel.
    """

    mean: Tensor
    std: Tensor
    axes: Tensor
    step: float

    @property
    def channels(self) -> int:
        """C, of maps and of axes."""
        return len(self.mean)

    def project(self, vectors: Tensor) -> Tensor:
        """Return coordinates (V, C) of channel vectors (V, C) in units of the step, not yet rounded."""
        mean, std, axes = (part.to(vectors.device) for part in (self.mean, self.std, self.axes))
        return (vectors - mean) / (std * self.step) @ axes.T

    def restore(self, coordinates: Tensor) -> Tensor:
        """Undo `project`."""
        return coordinates @ self.axes * (self.std * self.step) + self.mean

    def save(self, cache: Path, identity: CacheIdentity) -> "Basis":
        """Publish the basis in a cache's folder and return the one that counts: of several writers the first wins.

        The jobs of an array may fit at the same time, on devices that round differently; all must store along one.

        Args:
            cache: The folder.
            identity: Whose maps it was fitted on; until the first shard is finished nothing else in the folder tells.
        """
        cache.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(cache / BASIS)
        content = {"mean": self.mean, "std": self.std, "axes": self.axes.contiguous()}
        content["step"] = torch.tensor(self.step, dtype=torch.float64)
        try:
            with temporary.open("wb") as file:
                file.write(save(content, {"identity": json.dumps(asdict(identity), sort_keys=True)}))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # which a rename would not raise
                (cache / BASIS).hardlink_to(temporary)
            sync_directory(cache)
        finally:
            temporary.unlink(missing_ok=True)
        return self.load(cache)

    @classmethod
    def load(cls, cache: Path, sha256: str | None = None) -> "Basis":
        """Read the basis of a cache.

        Args:
            cache: Its folder.
            sha256: What its file must hash to.

        Raises:
            CacheError: There is none, or another one.
        """
        path = cache / BASIS
        fix = "Copy it again from where the cache was made, or delete the cache and run `pl-distill predict` again."
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CacheError(path, f"cannot be read ({error})", "the basis of this cache", fix) from error
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and found != sha256:
            raise CacheError(path, f"has SHA-256 {found}", sha256, fix)
        try:
            content = load(data)
            return cls(content["mean"], content["std"], content["axes"], float(content["step"]))
        except (SafetensorError, KeyError) as error:
            raise CacheError(path, f"is no basis ({error})", "mean, std, axes and step", fix) from error


def basis_sha256(cache: Path) -> str:
    """Return the hash of a cache's basis, or "" where none has been fitted."""
    path = cache / BASIS
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def basis_identity(cache: Path) -> CacheIdentity | None:
    """Return whose maps a cache's basis was fitted on, or None where its file is of a version that did not say."""
    with safe_open(cache / BASIS, framework="pt") as file:
        metadata = file.metadata() or {}
    return CacheIdentity(**json.loads(metadata["identity"])) if "identity" in metadata else None


def fit_basis(frames: Tensor) -> Basis:
    """Fit a basis, and the widest step that keeps `TARGET` in every frame.

    The cosine is asked for twice: of the maps, and of the maps with each channel divided by its root mean square. With
    a few large channels the first is high although the others are lost.

    Args:
        frames: (F, V, C): channel vectors at V locations of each of F frames.
    """
    frames = frames.float().cpu()
    vectors = frames.flatten(0, 1)  # (F*V, C)
    mean = vectors.mean(0)
    std = (vectors - mean).square().mean(0).sqrt()
    std = torch.where(std > 0, std, 1.0)  # a channel that never changes has no coordinates
    scaled = ((vectors - mean) / std).double()
    _, axes = cast(Any, torch.linalg.eigh)(scaled.T @ scaled / len(scaled))  # ascending
    axes = axes.flip(1).T.float().contiguous()
    level = vectors.square().mean(0).sqrt()
    level = torch.where(level > 0, level, 1.0)
    few = frames[:, :: max(1, frames.shape[1] // 64)].contiguous()  # (F, about 64, C): the search multiplies often

    def keeps_enough(step: float) -> bool:
        basis = Basis(mean, std, axes, step)
        back = basis.restore(basis.project(few.flatten(0, 1)).round()).reshape(few.shape)
        kept = [torch.cosine_similarity(few / by, back / by, dim=2).mean(1).min() for by in (1.0, level)]
        return bool(min(kept) >= TARGET)

    widest = bisect_left(_STEPS, True, key=keeps_enough)
    return Basis(mean, std, axes, _STEPS[min(widest, len(_STEPS) - 1)])
