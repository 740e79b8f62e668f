"""Records of animals that never lived: to see that an association is found where one was planted, and nowhere else.

Each animal has its own level, days that resemble the day before, a rhythm over the day, and shares the herd's weather.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pl_distill.reid.outcomes import Outcome
from pl_distill.reid.record_schema import BEHAVIOURS, behaviour_column

FIRST_DAY = date(2026, 1, 1)
_TYPICAL_PERCENT = (45, 14, 9, 12, 10, 5, 2, 1, 2)  # of BEHAVIOURS, in that order
_SLEEP, _WALK = BEHAVIOURS.index("sleep"), BEHAVIOURS.index("walk")
_ONSET_DAYS = 5  # until lameness is complete
_MEMORY = 0.6  # correlation of an animal's day with the day before


def simulate_hours(
    animals: int,
    days: int,
    seed: int,
    hours: Sequence[int] = tuple(range(24)),
    lame_from: Mapping[int, int] | None = None,
    walks: float = 0.6,
) -> pd.DataFrame:
    """Make a record.

    Args:
        animals: How many, named ``animal-0001`` and so on.
        days: How long.
        seed: Of everything.
        hours: Of each day that are recorded.
        lame_from: Number of an animal -> day on which it begins to walk less.
        walks: Share of its way that a lame animal still walks when lameness is complete.

    Returns:
        Rows as `pl_distill.reid.record_files.read_hours` gives them.
    """
    rng = np.random.default_rng(seed)
    shape = (animals, days, len(hours))
    rhythm = 1 + 0.7 * np.sin((np.array(hours) - 8) / 24 * 2 * np.pi)  # awake around two in the afternoon

    def level(between: float, within: float, hourly: float) -> NDArray[np.float64]:
        """Factor of each animal, day and hour: own level, slow changes, the herd's weather, chance."""
        log = rng.normal(0, between, (animals, 1, 1)) + rng.normal(0, within, (1, days, 1))
        slow = np.empty((animals, days))
        slow[:, 0] = rng.normal(0, within, animals)
        noise = rng.normal(0, within * np.sqrt(1 - _MEMORY**2), (animals, days))
        for day in range(1, days):
            slow[:, day] = _MEMORY * slow[:, day - 1] + noise[:, day]
        factor: NDArray[np.float64] = np.exp(log + slow[..., None] + rng.normal(0, hourly, shape))
        return factor

    vigour = np.ones((animals, days, 1))
    for animal, first in (lame_from or {}).items():
        done = np.clip((np.arange(days) - first + 1) / _ONSET_DAYS, 0, 1)
        vigour[animal, :, 0] = 1 - (1 - walks) * done
    seen = np.clip(rng.normal(3300, 200, shape), 0, 3600)
    budget = np.array(_TYPICAL_PERCENT) / 100 * np.stack([level(0.2, 0.15, 0.3) for _ in BEHAVIOURS], axis=-1)
    budget[..., 1:] *= rhythm[:, None]
    budget[..., _SLEEP] /= rhythm
    budget[..., _WALK] *= vigour
    budget /= budget.sum(-1, keepdims=True)
    hour_numbers = (24 * np.arange(days)[:, None] + np.array(hours)).ravel()
    times = np.datetime64(FIRST_DAY, "us") + hour_numbers * np.timedelta64(3_600_000_000, "us")
    names = [f"animal-{number + 1:04d}" for number in range(animals)]
    age = np.arange(days)[None, :, None]
    columns: dict[str, NDArray[Any]] = {
        "seen_s": seen,
        "distance_m": 60 * rhythm * vigour * level(0.25, 0.15, 0.3) * seen / 3600,
        "feeder_visits": rng.poisson(1.2 * rhythm * level(0.2, 0.1, 0.1)),
        "feeder_s": budget[..., BEHAVIOURS.index("eat")] * seen,
        "drinker_visits": rng.poisson(0.8 * rhythm * level(0.2, 0.1, 0.1)),
        "drinker_s": budget[..., BEHAVIOURS.index("drink")] * seen,
        "neighbours": np.clip(2 * level(0.15, 0.1, 0.2), 0, animals - 1),
        "nearest_s": 0.4 * seen,
        "embeddings": np.full(shape, 7),
        "drift": np.clip(0.3 * (1 - np.exp(-age / 60)) * level(0.2, 0.05, 0.05), 0, 2),
    }
    columns.update({behaviour_column(name): budget[..., index] * seen for index, name in enumerate(BEHAVIOURS)})
    frame = pd.DataFrame({name: values.reshape(-1) for name, values in columns.items()})
    frame.insert(0, "animal", np.repeat(names, days * len(hours)))
    frame.insert(1, "hour", np.tile(times, animals))
    frame["hour"] = pd.to_datetime(frame["hour"], utc=True)
    frame.insert(2, "camera", "simulated")
    frame["nearest"] = np.repeat(names[1:] + names[:1], days * len(hours))
    return frame


def number_of(animal: str) -> int:
    """Give the number, from 0 on, of the animal that has this name in a simulated record."""
    return int(animal.rpartition("-")[2]) - 1


def draw_outcomes(animals: int, days: int, cases: int, seed: int) -> list[Outcome]:
    """Draw animals and days of a lameness, no animal twice, late enough for a past of 45 days where there is one."""
    rng = np.random.default_rng((seed, 1))
    chosen = rng.choice(animals, cases, replace=False)
    when = rng.integers(min(45, days // 2), days, cases)
    first = np.datetime64(FIRST_DAY)
    return [
        Outcome(f"animal-{number + 1:04d}", (first + int(day)).item(), "lameness", 1.0)
        for number, day in zip(chosen, when, strict=True)
    ]
