"""The order in which each rank reads samples: as many batches on every rank, resumable after any of them.

A rank whose loader ends early leaves the others waiting in a collective; WebDataset splits shards, not samples, among
ranks and workers and so cannot promise equal lengths (github.com/webdataset/webdataset, issue 434).
Here the whole epoch is planned over samples, which indexed shards allow; workers only fetch what the plan names.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, DistributedSampler


def shuffled_order(shard_sizes: Sequence[int], *, seed: int, epoch: int, block_shards: int) -> NDArray[np.int64]:
    """Shuffle an epoch: the shards first, then the samples within each block of neighbouring shards.

    Args:
        shard_sizes: Samples in each shard; sample indices count through the shards in this order.
        seed: Seed of the run.
        epoch: Number of the epoch, from 0; each has its own order.
        block_shards: Shards that are open at a time. More of them mix better, fewer stay in the page cache.

    Returns:
        Shape (N,), every sample index once.
    """
    generator = np.random.default_rng([seed, epoch])
    starts = np.concatenate([[0], np.cumsum(shard_sizes)])
    shards = generator.permutation(len(shard_sizes))
    order = []
    for first in range(0, len(shards), block_shards):
        block = [np.arange(starts[shard], starts[shard + 1]) for shard in shards[first : first + block_shards]]
        order.append(generator.permutation(np.concatenate(block)))
    return np.concatenate(order)


def share_of_rank(
    order: NDArray[np.int64], *, batch_size: int, rank: int, ranks: int, full_batches: bool
) -> NDArray[np.int64]:
    """Cut one rank's contiguous share out of an order.

    All shares have one length: ``ceil(N / (ranks * batch_size)) * batch_size`` with `full_batches`, otherwise
    ``ceil(N / ranks)``. What is missing for that is taken once more from the start of the order, so that over all
    ranks each sample comes floor(T / N) or ceil(T / N) times, where T is the sum of the lengths: always at least once,
    and with ``ranks=1, full_batches=False`` exactly once.
    """
    length = math.ceil(len(order) / ranks)
    if full_batches:
        length = math.ceil(length / batch_size) * batch_size
    return np.resize(order, length * ranks)[rank * length : (rank + 1) * length]


class EpochSampler(DistributedSampler[int]):
    """Sample indices of one rank, epoch by epoch; a `DataLoader` cuts them into batches of `batch_size`.

    It is a `DistributedSampler` so that Lightning leaves it in place and calls `set_epoch`; the order is its own.

    Args:
        shard_sizes: Samples in each shard, at least one in all.
        batch_size: Samples per batch and rank.
        rank: This process, from 0.
        ranks: Number of processes.
        seed: Seed of the order.
        training: Shuffle, and fill the last batch by repeating samples (see `share_of_rank`).
            Otherwise the order is that of the shards and the last batch may be smaller, equally on all ranks.
        block_shards: See `shuffled_order`. The default keeps 16 shards in reach.
    """

    def __init__(
        self,
        shard_sizes: Sequence[int],
        *,
        batch_size: int,
        rank: int = 0,
        ranks: int = 1,
        seed: int = 0,
        training: bool = True,
        block_shards: int = 16,
    ) -> None:
        if sum(shard_sizes) == 0 or batch_size < 1 or block_shards < 1:
            raise ValueError(f"{sum(shard_sizes)} samples, batch size {batch_size}, {block_shards} shards per block")
        samples = cast(Dataset[int], range(sum(shard_sizes)))  # the base class asks for no more than its length
        super().__init__(samples, num_replicas=ranks, rank=rank, shuffle=training, seed=seed)
        self.shard_sizes = tuple(shard_sizes)
        self.batch_size = batch_size
        self.block_shards = block_shards
        self._resumed: tuple[int, int] | None = None  # epoch, batches of it that were consumed
        self.num_samples = len(self._share(epoch=0))

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch, also in one that is resumed: Lightning counts from its start."""
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        return iter(self._share(self.epoch)[self.consumed * self.batch_size :].tolist())

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, the same on every rank."""
        return math.ceil(len(self) / self.batch_size)

    @property
    def fresh(self) -> int:
        """How many samples of this rank are its own: those after them repeat others, so that all shares are alike."""
        return min(max(sum(self.shard_sizes) - self.rank * self.num_samples, 0), self.num_samples)

    @property
    def consumed(self) -> int:
        """Batches that are left out of the present epoch because an earlier run has seen them."""
        return self._resumed[1] if self._resumed is not None and self._resumed[0] == self.epoch else 0

    def resume(self, epoch: int, consumed: int) -> None:
        """Go to `epoch` and leave out its first `consumed` batches; later epochs are whole."""
        self._resumed = (epoch, consumed)
        self.set_epoch(epoch)

    def describe(self) -> dict[str, Any]:
        """Return what the order depends on; a run can only be resumed in mid-epoch by one that agrees in all of it."""
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "ranks": self.num_replicas,
            "shards": len(self.shard_sizes),
            "samples": sum(self.shard_sizes),
            "block_shards": self.block_shards,
            "shuffled": self.shuffle,
        }

    def _share(self, epoch: int) -> NDArray[np.int64]:
        if self.shuffle:
            order = shuffled_order(self.shard_sizes, seed=self.seed, epoch=epoch, block_shards=self.block_shards)
        else:
            order = np.arange(sum(self.shard_sizes))
        return share_of_rank(
            order, batch_size=self.batch_size, rank=self.rank, ranks=self.num_replicas, full_batches=self.shuffle
        )


class TicketSampler(EpochSampler):
    """An `EpochSampler` whose indices also tell the epoch, ``epoch * samples + number``.

    Worker processes outlive an epoch and do not hear of the next one; what is drawn for a sample must depend on it, and
    on nothing else, or a resumed run would draw anew.
    """

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * sum(self.shard_sizes)  # now: the epoch is set anew while workers still fetch
        return (first + number for number in super().__iter__())
