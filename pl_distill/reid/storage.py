"""How a unit vector is kept on disk: float32, float16, or int8 with one scale a vector."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Storage = Literal["float32", "float16", "int8"]
Vectors = NDArray[np.float32]

NUMPY_TYPE: dict[Storage, type[np.generic]] = {"float32": np.float32, "float16": np.float16, "int8": np.int8}
BYTES_PER_VALUE: dict[Storage, int] = {"float32": 4, "float16": 2, "int8": 1}


def encode(vectors: Vectors, storage: Storage) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
    """Give what is stored.

    Args:
        vectors: (N, D), unit length.
        storage: Kind of numbers.

    Returns:
        The stored values (N, D), and a factor for each vector (N,): the vector is their product.
    """
    ones = np.ones(len(vectors), np.float32)
    if storage == "float32":
        return vectors.astype(np.float32), ones
    if storage == "float16":
        return vectors.astype(np.float16), ones
    scale = np.maximum(np.abs(vectors).max(axis=1), 1e-12) / 127
    return np.rint(vectors / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def decode(stored: NDArray[np.generic], scale: NDArray[np.float32], storage: Storage) -> Vectors:
    """Give the vectors (N, D) back, of unit length again."""
    if storage == "float32":
        return np.ascontiguousarray(stored, np.float32)
    vectors = stored.astype(np.float32)
    return normalised(vectors if storage == "float16" else vectors * scale[:, None])


def normalised(vectors: Vectors) -> Vectors:
    """Scale each row to unit length; a row of zeros stays."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    result: Vectors = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return result
