"""The vectors of a pool, animal by animal: what a gallery and a record begin with."""

from collections.abc import Iterator, Sequence

import numpy as np

from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.samples import Stored

_AT_ONCE = 128  # animals whose vectors are in memory together


def vectors_by_animal(
    pool: EmbeddingPool, animals: Sequence[str] | None = None, first_s: float | None = None
) -> Iterator[Stored]:
    """Read the vectors of each animal that has any, in a few reads of the file: each looks through all of it.

    Args:
        pool: Which.
        animals: Of whom; None: of all that are known.
        first_s: Only those of the first so many seconds of each; None: all.

    Yields:
        The vectors of one animal, by time.
    """
    names = pool.animals if animals is None else list(animals)
    began = {} if first_s is None else pool.first_seen()
    for begin in range(0, len(names), _AT_ONCE):
        some = names[begin : begin + _AT_ONCE]
        ends = [] if first_s is None else [began[name] + first_s for name in some if name in began]
        stored = pool.vectors(some, until_s=max(ends) if ends else None)
        owners, starts = np.unique(stored.animals, return_index=True)
        for owner, first, last in zip(owners, starts, np.append(starts, len(stored.ids))[1:], strict=True):
            if first_s is not None:
                last = first + int(np.searchsorted(stored.times_s[first:last], began[str(owner)] + first_s))
            rows = slice(first, last)
            yield Stored(stored.ids[rows], stored.animals[rows], stored.times_s[rows], stored.vectors[rows])
