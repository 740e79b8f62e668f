"""What goes into a pool, and what comes out of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pl_distill.reid.storage import Vectors


@dataclass(frozen=True)
class Sample:
    """One embedding with where it comes from.

    Args:
        camera: Name of the camera; the same track number of two cameras is two tracks.
        session: Name of the tracker's run: numbers start anew in each.
        number: The tracker's number.
        time_s: Seconds since 1970 (UTC).
        vector: (D,), unit length.
        quality: How good the crop is, 0 to 1.
    """

    camera: str
    session: str
    number: int
    time_s: float
    vector: Vectors
    quality: float = 1.0


@dataclass(frozen=True)
class Stored:
    """Vectors of a pool, the oldest first within each animal.

    Args:
        ids: (N,), numbers of the rows.
        animals: (N,), names.
        times_s: (N,), seconds since 1970 (UTC).
        vectors: (N, D), float32, unit length.
    """

    ids: NDArray[np.int64]
    animals: NDArray[np.str_]
    times_s: NDArray[np.float64]
    vectors: Vectors
