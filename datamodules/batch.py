"""The typed batches that LightningModules consume.

B batch, C channels, H W pixels of the model input, h w feature grid.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

from torch import Tensor


def frames_in(batch: Any) -> int:
    """How many pictures (of behaviours: windows) a batch of any of our data modules holds."""
    if isinstance(batch, Mapping):
        return len(batch["image"])
    if hasattr(batch, "images"):
        return int(batch.images.shape[:-3].numel())  # (N, 3, S, S), or windows of them
    return len(batch.features)


class ImageBatch(TypedDict):
    """Frames, or views of them, for the teacher to look at, all from one shard.

    `image` is (B, 3, H, W) float32 as SAM 3's processor gives it (`datamodules.preprocessing.Preprocessing`).
    `key` names the frame of each. `shard` is the image shard's path within its folder, ``train/train-000000.tar``.
    """

    key: list[str]
    shard: str
    image: Tensor


class DistillationBatch(TypedDict):
    """Frames with the teacher's cached answer: `image` (B, 3, H, W) float32, `teacher_map` (B, C, h, w) float32."""

    key: list[str]
    image: Tensor
    teacher_map: Tensor
