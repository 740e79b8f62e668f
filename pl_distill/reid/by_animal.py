"""The vectors of a pool, animal by animal: what a gallery and a record begin with."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.samples import Stored

AT_ONCE = 20_000
"""Vectors that are read together, unless an animal has more: a pen's whole archive fits into no small device."""


def vectors_by_animal(
    pool: EmbeddingPool, animals: Sequence[str] | None = None, first_s: float | None = None
) -> Iterator[Stored]:
    """Read the vectors of each animal that has any, several animals at a time: a read looks through the whole file.

    Args:
        pool: Which.
        animals: Of whom; None: of all that are known.
        first_s: Only those of the first so many seconds of each; None: all.

    Yields:
        The vectors of one animal, by time.
    """
    for some in _shares(pool.animals if animals is None else animals, pool.count()):
        stored = pool.vectors(some, first_s)
        _, starts = np.unique(stored.animals, return_index=True)
        for first, last in pairwise([*starts.tolist(), len(stored.ids)]):
            rows = slice(first, last)
            yield Stored(stored.ids[rows], stored.animals[rows], stored.times_s[rows], stored.vectors[rows])


def _shares(names: Sequence[str], counts: Mapping[str, int]) -> Iterator[list[str]]:
    """Divide animals into shares of at most `AT_ONCE` vectors, or of one animal."""
    share: list[str] = []
    held = 0
    for name in names:
        if share and held + counts.get(name, 0) > AT_ONCE:
            yield share
            share, held = [], 0
        share.append(name)
        held += counts.get(name, 0)
    if share:
        yield share
