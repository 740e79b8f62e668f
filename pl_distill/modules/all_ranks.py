"""What the ranks of a training have found, brought together."""

from typing import Any, TypeVar

import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor

from datamodules.resumption import ResumableDataLoader

T = TypeVar("T")


def from_all_ranks(value: T) -> list[T]:
    """Return what every rank gives, in the order of ranks, the same on each; on tensors of the CPU.

    Every rank must call it, whatever it has: a metric that only some ranks log would be joined with another of theirs.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of every rank's tensor, all of one shape, without gradients. Every rank must call it."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def fresh_in_batch(trainer: Trainer, batch_idx: int, size: int) -> int:
    """Return how many of the `size` samples of this rank's validation batch, the first ones, are to be scored.

    The others fill the shares of the ranks up to one length, and another rank scores them. They stay in means that are
    logged batch by batch, such as a loss: fewer samples than there are ranks. Of another loader all are to be scored.
    """
    loader = trainer.val_dataloaders
    if not isinstance(loader, ResumableDataLoader):
        return size
    return min(max(loader.plan.fresh - batch_idx * loader.plan.batch_size, 0), size)
