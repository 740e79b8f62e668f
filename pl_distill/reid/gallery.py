"""Galleries: what the known animals look like, and how much like each of them a new embedding is.

Two ways to score. The mean gallery compares with one mean vector of each animal. The gallery of single sightings takes
the best of an animal's vectors, with an allowance for age, so that a coat that grows or gets dirty is compared with its
newest state, and a rare posture with the last time it was seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pl_distill.reid.storage import Vectors, normalised

_DAY_S = 86_400.0


class Gallery(Protocol):
    """Scores embeddings against known animals."""

    @property
    def animals(self) -> tuple[str, ...]:
        """Names, in the order of the scores' columns."""

    def scores(self, queries: Vectors) -> NDArray[np.float32]:
        """Give the likeness (Q, A) of embeddings (Q, D) with each animal: a cosine, less what age takes off."""


@dataclass(frozen=True)
class SightingsGallery:
    """Scores by the best of single sightings.

    A vector's score is its cosine less `decay_per_day` for each day that it is older than the animal's newest. Age
    counts from there and not from now: an animal that was away for a month is not less itself for it.

    Args:
        animals: Names.
        vectors: (M, D), grouped by animal in the order of `animals`, unit length.
        starts: (A + 1,): the vectors of animal a are rows ``starts[a]`` to ``starts[a + 1]``.
        penalty: (M,), what age takes off each vector's cosine.
    """

    animals: tuple[str, ...]
    vectors: Vectors
    starts: NDArray[np.int64]
    penalty: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        animals: Sequence[str] | NDArray[np.str_],
        times_s: NDArray[np.float64],
        vectors: Vectors,
        decay_per_day: float = 0.0,
    ) -> "SightingsGallery":
        """Group vectors (M, D) of animals (M,) seen at times (M,); no copy if they are grouped already."""
        names, starts, order = _grouped(animals)
        if order is not None:
            times_s, vectors = times_s[order], vectors[order]
        newest = np.maximum.reduceat(times_s, starts[:-1]) if len(names) else np.zeros(0)
        age = (np.repeat(newest, np.diff(starts)) - times_s) / _DAY_S
        return cls(names, np.ascontiguousarray(vectors, np.float32), starts, (decay_per_day * age).astype(np.float32))

    def scores(self, queries: Vectors) -> NDArray[np.float32]:
        """Give the best score (Q, A) of each animal's vectors."""
        if not self.animals:
            return np.zeros((len(queries), 0), np.float32)
        likeness = np.asarray(queries, np.float32) @ self.vectors.T  # (Q, M)
        if self.penalty.any():
            likeness -= self.penalty
        best: NDArray[np.float32] = np.maximum.reduceat(likeness, self.starts[:-1], axis=1)
        return best


@dataclass(frozen=True)
class MeanGallery:
    """Scores by one mean vector of each animal.

    Args:
        animals: Names.
        means: (A, D), unit length.
    """

    animals: tuple[str, ...]
    means: Vectors

    @classmethod
    def of(
        cls, animals: Sequence[str] | NDArray[np.str_], vectors: Vectors, weights: NDArray[np.float32] | None = None
    ) -> "MeanGallery":
        """Average vectors (M, D) of animals (M,), each with its weight (M,) where `recency` gives some."""
        names, starts, order = _grouped(animals)
        if weights is not None:
            vectors = vectors * weights[:, None]
        if order is not None:
            vectors = vectors[order]
        sums = np.add.reduceat(vectors, starts[:-1], axis=0) if names else np.zeros((0, vectors.shape[1]))
        return cls(names, normalised(sums.astype(np.float32)))

    def scores(self, queries: Vectors) -> NDArray[np.float32]:
        """Give the cosine (Q, A) with each mean."""
        if not self.animals:
            return np.zeros((len(queries), 0), np.float32)
        return np.asarray(np.asarray(queries, np.float32) @ self.means.T, np.float32)


def recency(times_s: NDArray[np.float64], half_life_days: float) -> NDArray[np.float32]:
    """Give weights (M,) that halve with every half-life before the newest of the times (M,)."""
    age = (times_s.max(initial=-np.inf) - times_s) / _DAY_S
    return np.asarray(np.exp2(-age / half_life_days), np.float32)


def _grouped(
    animals: Sequence[str] | NDArray[np.str_],
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64] | None]:
    """Names in order (A,), where each one's rows start and end (A + 1,), and how to sort rows that are not grouped."""
    labels = np.asarray(animals, dtype=np.str_)
    starts = np.concatenate(([0], np.flatnonzero(labels[1:] != labels[:-1]) + 1)) if len(labels) else np.zeros(0, int)
    names, order = labels[starts], None
    if (names[1:] <= names[:-1]).any():  # a year of rows is sorted already: sorting its names anew would take seconds
        order = np.argsort(labels, kind="stable").astype(np.int64)
        names, starts = np.unique(labels[order], return_index=True)
    return tuple(map(str, names)), np.append(starts, len(labels)).astype(np.int64), order


_FEW = 32
"""So many vectors too many are taken out one after the other; more at once."""


def choose_by_age(times_s: NDArray[np.float64], keep: int) -> NDArray[np.int64]:
    """Choose at most `keep` of an animal's vectors, dense in the last days and ever sparser before: evenly in log age.

    Of a few too many, those go whose neighbours are closest to each other: asked again and again, as vectors come one
    by one, it keeps what lies between the last days and the first, which would not outlive the wishes of each day.

    Args:
        times_s: (M,), ascending.
        keep: How many; at least 1.

    Returns:
        Ascending rows; always the newest, always the oldest where `keep` is above 1.
    """
    number = len(times_s)
    if number <= keep:
        return np.arange(number)
    age = np.log1p((times_s[-1] - times_s) / _DAY_S)
    if keep > 1 and number - keep <= _FEW:
        rows = np.arange(number)
        while len(rows) > keep:
            left = age[rows]
            rows = np.delete(rows, 1 + (left[:-2] - left[2:]).argmin())
        return rows
    wanted = np.linspace(0, age[0], keep)
    ascending = age[::-1]
    rows = number - 1 - np.clip(np.searchsorted(ascending, wanted), 0, number - 1)
    chosen = np.unique(rows)
    if len(chosen) < keep:  # several wishes met in one vector: fill up with the newest that are free
        free = np.setdiff1d(np.arange(number), chosen)
        chosen = np.union1d(chosen, free[::-1][: keep - len(chosen)])
    return np.asarray(chosen, np.int64)


class HeldGallery(Protocol):
    """What a chain holds in memory of the animals that it knows, and goes on learning."""

    @property
    def animals(self) -> list[str]:
        """Names of those that it knows."""

    @property
    def gallery(self) -> Gallery:
        """The gallery of this moment."""

    def add(self, animal: str, times_s: NDArray[np.float64], vectors: Vectors) -> None:
        """Take vectors (N, D) of an animal seen at times (N,), in seconds."""

    def forget(self, animal: str) -> None:
        """Drop an animal that was merged into another."""


class RunningMeans:
    """One mean of each animal, of every vector that it was ever given: it does not grow.

    Args:
        half_life_days: After which a vector counts half, from the animal's newest on; None lets all count alike.
    """

    def __init__(self, half_life_days: float | None = None) -> None:
        self._half_life = half_life_days
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._newest_s: dict[str, float] = {}
        self._gallery: MeanGallery | None = None

    @property
    def animals(self) -> list[str]:
        """Names of those that have a vector here."""
        return sorted(self._sums)

    def add(self, animal: str, times_s: NDArray[np.float64], vectors: Vectors) -> None:
        """Take vectors (N, D) of an animal seen at times (N,), in seconds."""
        newest = max(float(times_s.max()), self._newest_s.get(animal, -np.inf))
        added = self._weights(newest - times_s) @ vectors.astype(np.float64)
        if animal in self._sums:
            added += float(self._weights(np.float64(newest - self._newest_s[animal]))) * self._sums[animal]
        self._sums[animal], self._newest_s[animal] = added, newest
        self._gallery = None

    def forget(self, animal: str) -> None:
        """Drop an animal that was merged into another."""
        self._sums.pop(animal, None)
        self._newest_s.pop(animal, None)
        self._gallery = None

    @property
    def gallery(self) -> MeanGallery:
        """The gallery of this moment."""
        if self._gallery is None:
            names = self.animals
            sums = np.stack([self._sums[name] for name in names]) if names else np.zeros((0, 1))
            self._gallery = MeanGallery(tuple(names), normalised(sums.astype(np.float32)))
        return self._gallery

    def _weights(self, age_s: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
        half_lives = 0.0 if self._half_life is None else 1 / (self._half_life * _DAY_S)
        return np.asarray(np.exp2(-age_s * half_lives), np.float64)


class BoundedGallery:
    """Single sightings in memory: at most so many vectors of each animal, however long it runs.

    A vector leaves only when another of the same animal comes in its place: an animal is never forgotten.

    Args:
        per_animal: The most vectors of one animal.
        decay_per_day: See `SightingsGallery`.
    """

    def __init__(self, per_animal: int = 512, decay_per_day: float = 0.0) -> None:
        self._per_animal, self._decay = per_animal, decay_per_day
        self._times: dict[str, NDArray[np.float64]] = {}
        self._vectors: dict[str, Vectors] = {}
        self._gallery: SightingsGallery | None = None

    def __len__(self) -> int:
        return sum(map(len, self._times.values()))

    @property
    def animals(self) -> list[str]:
        """Names of those that have a vector here."""
        return sorted(self._times)

    def add(self, animal: str, times_s: NDArray[np.float64], vectors: Vectors) -> None:
        """Take vectors (N, D) of an animal seen at times (N,)."""
        if animal in self._times:
            times_s = np.concatenate((self._times[animal], times_s))
            vectors = np.concatenate((self._vectors[animal], vectors))
        order = np.argsort(times_s, kind="stable")
        order = order[choose_by_age(times_s[order], self._per_animal)]
        self._times[animal], self._vectors[animal] = times_s[order], vectors[order]
        self._gallery = None

    def forget(self, animal: str) -> None:
        """Drop an animal that was merged into another."""
        self._times.pop(animal, None)
        self._vectors.pop(animal, None)
        self._gallery = None

    @property
    def gallery(self) -> SightingsGallery:
        """The gallery of this moment."""
        if self._gallery is None:
            names = sorted(self._times)
            self._gallery = SightingsGallery.of(
                [name for name in names for _ in self._times[name]],
                np.concatenate([self._times[name] for name in names]) if names else np.zeros(0),
                np.concatenate([self._vectors[name] for name in names]) if names else np.zeros((0, 1), np.float32),
                self._decay,
            )
        return self._gallery
