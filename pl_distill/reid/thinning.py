"""Take from a pool what it can do without."""

import numpy as np

from pl_distill.reid.pool import EmbeddingPool


def thin(pool: EmbeddingPool, animal: str, keep: int, replaceable: float = 0.9) -> int:
    """Delete an animal's oldest vectors beyond `keep`, but none that the others cannot replace.

    Args:
        pool: Which holds them.
        animal: Its name.
        keep: How many to keep at least.
        replaceable: A vector may go if one that stays has at least this cosine with it.

    Returns:
        How many went; fewer than wished where the looks of the animal would be lost.
    """
    stored = pool.vectors([animal])
    excess = len(stored.ids) - max(keep, 1)
    if excess <= 0:
        return 0
    stays = np.ones(len(stored.ids), bool)
    for row in range(len(stored.ids)):
        if excess == 0:
            break
        stays[row] = False
        if (stored.vectors[stays] @ stored.vectors[row]).max() < replaceable:
            stays[row] = True
        else:
            excess -= 1
    return pool.delete(stored.ids[~stays])
