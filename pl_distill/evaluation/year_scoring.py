"""How a simulated year is scored: on which days something is chosen, and which are asked about."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pl_distill.errors import ConfigError
from pl_distill.reid.storage import Storage

_CHOOSING_DAYS = 3  # of each gap


@dataclass(frozen=True)
class YearScoring:
    """How a year is scored.

    Args:
        per_hour: Vectors of an animal in an hour of the archive.
        bounded: The most vectors of one animal in the gallery; None: all of them.
        storage: How the archive is kept: float32, float16 or int8.
        gaps: Days since anybody was last seen; only days are asked about that were drawn so long after another. IDF1
            visits days that are at least so far apart: of days drawn in pairs, a gap of 1 visits all of them.
        validation_days: Days from the first on that choose decay, threshold and margin; the later ones are scored.
        test_days: How many days are scored at most, evenly spread.

    Raises:
        ConfigError: A number is below 1, or there is no gap.
    """

    per_hour: int = 7
    bounded: int | None = None
    storage: Storage = "float32"
    gaps: tuple[int, ...] = (1, 10, 30, 90, 180)
    validation_days: int = 120
    test_days: int = 8

    def __post_init__(self) -> None:
        numbers = (self.per_hour, self.validation_days, self.test_days, *self.gaps)
        if not self.gaps or min(numbers) < 1 or (self.bounded is not None and self.bounded < 1):
            raise ConfigError("scoring", f"is {self}", "a gap, and every number 1 or more", "Correct it.")

    def choosing(self, drawn: Iterable[int]) -> list[tuple[int, int]]:
        """Return the days on which something is chosen, each with the gap that is tried on it."""
        days = set(drawn)
        last = self.validation_days - 1
        return [(day, gap) for gap in self.gaps for day in _spread(_days_after(days, gap, 0, last), _CHOOSING_DAYS)]

    def asked(self, drawn: Iterable[int], gap: int) -> list[int]:
        """Return the days that are scored at a gap: each was drawn, and so was the day `gap` days before it."""
        days = set(drawn)
        return _spread(_days_after(days, gap, self.validation_days, max(days)), self.test_days)

    def check(self, drawn: Iterable[int]) -> list[int]:
        """Return the gaps at which no drawn day can be asked about.

        Raises:
            ConfigError: No gap is left, or nothing can be chosen on the days of validation.
        """
        days = sorted(drawn)
        if not self.choosing(days):
            raise ConfigError(
                "scoring.validation_days", f"is {self.validation_days}, which leaves none of the gaps {self.gaps}",
                "two drawn days with a gap between", "Raise it, or draw more days.",
            )  # fmt: skip
        left_out = [gap for gap in self.gaps if not self.asked(days, gap)]
        if len(left_out) == len(self.gaps):
            raise ConfigError(
                "scoring.validation_days", f"is {self.validation_days} of {days[-1] + 1} days, for gaps of {self.gaps}",
                "a later drawn day that lies a gap after another", "Lower it, draw more days, or give other gaps.",
            )  # fmt: skip
        return left_out


def _days_after(drawn: set[int], gap: int, first: int, last: int) -> list[int]:
    """Drawn days from `first` to `last` with a drawn day `gap` days before: what is asked and what is known."""
    return sorted(day for day in drawn if first <= day <= last and day - gap in drawn)


def _spread(days: Sequence[int], number: int) -> list[int]:
    """At most `number` of the days, evenly spread, the first and the last among them."""
    if len(days) <= number:
        return list(days)
    return [days[int(place)] for place in np.linspace(0, len(days) - 1, number)]
