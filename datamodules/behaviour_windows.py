"""Short times around a moment: what a behaviour head looks at, the same in training and live."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.edinburgh_output import BEHAVIOURS
from datamodules.errors import CacheError, DataError

RATE_TOLERANCE = 0.01
"""So far two clips' observations a second may lie apart, as a share: 29.97 is 30."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which observations around a moment a head looks at.

    Args:
        past: Observations before it.
        future: Observations after it; a live answer is late by these.
    """

    past: int = 6
    future: int = 6

    def __post_init__(self) -> None:
        if self.past < 0 or self.future < 0:
            raise DataError("window", f"is {self.past} and {self.future}", "0 observations or more", "Correct it.")

    @property
    def length(self) -> int:
        """Observations in all."""
        return self.past + 1 + self.future


class BehaviourBatch(NamedTuple):
    """Windows of B animals and moments, T observations each.

    Args:
        features: What the embedder gave, (B, T, F), float32; 0 where nothing was seen.
        motion: What boxes and masks tell, (B, T, len(MOTION)), float32; 0 where nothing was seen.
        present: Where the animal was seen, (B, T), bool; the moment itself always.
        classes: Index of the behaviour's class, (B,), int64.
    """

    features: Tensor
    motion: Tensor
    present: Tensor
    classes: Tensor


def step_of(frame: NDArray[np.int32], animal: NDArray[np.int32]) -> int:
    """Return how many video frames lie between two observations: the most frequent distance, 1 if there is none."""
    gaps = np.diff(frame)[np.diff(animal) == 0]
    return int(np.bincount(gaps[gaps > 0]).argmax()) if (gaps > 0).any() else 1


def repeats_of(frame: NDArray[np.int32], animal: NDArray[np.int32], step: int) -> int:
    """Count how often an animal was seen so many video frames after it was seen before: what a clip's rate rests on."""
    return int((np.diff(frame)[np.diff(animal) == 0] == step).sum())


def common_rate(rates: Mapping[str, float]) -> float:
    """Give the observations per second that all clips have: a window of as many is as long in each of them.

    Args:
        rates: Of each clip, under the name that a user knows it by.

    Raises:
        CacheError: Two differ by more than `RATE_TOLERANCE`.
    """
    usual = Counter(round(rate, 3) for rate in rates.values()).most_common(1)[0][0]
    like = next(name for name, rate in rates.items() if round(rate, 3) == usual)
    for name, rate in rates.items():
        if abs(rate - usual) > RATE_TOLERANCE * usual:
            raise CacheError(
                name, f"has {rate:.3g} observations a second", f"{usual:.3g}, as {like} has",
                "A window would be of another length in either: embed both from labels, or videos, of one rate.",
            )  # fmt: skip
    return usual


def window_rows(frame: NDArray[np.int32], animal: NDArray[np.int32], window: Window, step: int) -> NDArray[np.int64]:
    """Find the rows of the window around each of M rows, which are by animal and then by frame.

    A row serves for a moment if it lies less than half a step from it: labels whose steps are not quite whole numbers
    of frames (every tenth of a second at 29.97 frames a second) slip by a frame now and then.

    Args:
        frame: Number of the video frame, (M,).
        animal: Number of the animal, (M,).
        window: Which observations.
        step: Video frames between two of them.

    Returns:
        Shape (M, T), row numbers; -1 where the animal was not seen at that moment.
    """
    if not len(frame):
        return np.zeros((0, window.length), np.int64)
    span = int(frame.max()) + 2 * step * window.length + 1  # so that no window reaches into another animal's keys
    keys = animal.astype(np.int64) * 2 * span + frame
    wanted = keys[:, None] + step * np.arange(-window.past, window.future + 1)
    after = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    before = np.maximum(after - 1, 0)
    found = np.where(np.abs(keys[before] - wanted) < np.abs(keys[after] - wanted), before, after)
    return np.where(2 * np.abs(keys[found] - wanted) < step, found, -1)


def check_classes(where: str, mapping: Mapping[str, str | None]) -> tuple[str, ...]:
    """Check a mapping from raw labels to classes and return the classes, in the order of their first mention.

    Raises:
        DataError: A raw label is unknown, or is neither mapped nor dropped.
    """
    unknown = [label for label in mapping if label not in BEHAVIOURS]
    missing = [label for label in BEHAVIOURS if label not in mapping]
    if unknown or missing:
        found = f"has the unknown label {unknown[0]!r}" if unknown else f"does not say what becomes of {missing[0]!r}"
        raise DataError(
            where,
            found,
            f"a class or null for each of {', '.join(BEHAVIOURS)}",
            "Add it: null drops a label on purpose.",
        )
    return tuple(dict.fromkeys(name for name in mapping.values() if name is not None))


def class_indices(
    behaviour: NDArray[np.int16], mapping: Mapping[str, str | None], classes: Sequence[str]
) -> NDArray[np.int64]:
    """Map raw labels, indices into `BEHAVIOURS`, to classes; -1 for what is dropped or unknown."""
    table = [-1 if mapping[label] is None else classes.index(str(mapping[label])) for label in BEHAVIOURS]
    return np.array([*table, -1], np.int64)[behaviour]  # -1 picks the last
