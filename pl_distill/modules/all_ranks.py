"""What the ranks of a training have found, brought together."""

from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

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
