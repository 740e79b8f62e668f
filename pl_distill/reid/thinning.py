"""Take from a pool what it can do without."""

import numpy as np

from pl_distill.reid.pool import EmbeddingPool

_ROUNDING = 1e-5
"""Two products of the same vectors may differ by less than this: a cosine that was counted must not be missed later."""


def thin(pool: EmbeddingPool, animal: str, keep: int, replaceable: float = 0.9) -> int:
    """Delete an animal's oldest vectors beyond `keep`, but none that those which stay cannot replace.

    Args:
        pool: Which holds them.
        animal: Its name.
        keep: How many to keep at least.
        replaceable: A vector may go if one that stays to the end has at least this cosine with it.

    Returns:
        How many went; fewer than wished where the looks of the animal would be lost.
    """
    stored = pool.vectors([animal])
    excess = len(stored.ids) - max(keep, 1)
    if excess <= 0:
        return 0
    stays = np.ones(len(stored.ids), bool)
    partners = np.zeros(len(stored.ids), np.int64)  # of each that went: how many of those that stay can replace it
    for row in range(len(stored.ids)):
        if excess == 0:
            break
        likeness = stored.vectors @ stored.vectors[row]
        likeness[row] = -1
        own = int((stays & (likeness >= replaceable)).sum())
        leaning = ~stays & (likeness >= replaceable - _ROUNDING)
        if own and (partners[leaning] > 1).all():
            stays[row], partners[row] = False, own
            partners[leaning] -= 1
            excess -= 1
    return pool.delete(stored.ids[~stays])
