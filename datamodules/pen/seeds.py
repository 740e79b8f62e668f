"""Random generators that depend on names only, so that one more clip, day or animal changes none of the others."""

import hashlib

import numpy as np


def generator(*names: object) -> np.random.Generator:
    """Give a generator that is the same on every machine for the same `names`, in this order."""
    digest = hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
