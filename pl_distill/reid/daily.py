"""From hours to days: one table of daily quantities, and how far each animal is from its own past."""

from dataclasses import dataclass
from datetime import UTC, date, timedelta, tzinfo
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pl_distill.errors import ConfigError

Floats = NDArray[np.float64]

_PER_HOUR = {
    "distance_m": "m/h",
    "feeder_visits": "1/h",
    "feeder_s": "s/h",
    "drinker_visits": "1/h",
    "drinker_s": "s/h",
}
_MEANS = {"neighbours": "seen_s", "drift": "embeddings"}
NO_BEHAVIOURS = {"seen_s", "distance_m", "feeder_s", "drinker_s", "nearest_s"}
BASELINE_DAYS = 7
"""So many days of an animal's past have to be known before anything is compared with it."""

_ENOUGH_SEEN_S = 600.0


@dataclass(frozen=True)
class DailyTable:
    """Quantities of animals by days.

    Args:
        animals: (A,) names.
        days: (T,) without gaps.
        names: (F,) of the quantities: distances and visits per tracked hour, behaviours in % of the tracked time.
        values: (F, A, T); NaN on days on which an animal was hardly seen where the quantity is known: in a picture with
            a feeder, by a behaviour head.
    """

    animals: tuple[str, ...]
    days: tuple[date, ...]
    names: tuple[str, ...]
    values: Floats

    def day_index(self, day: date) -> int:
        """Place of a day; below 0 or T and above outside of the record."""
        return (day - self.days[0]).days


def zone_of(name: str) -> tzinfo:
    """Give a time zone.

    Raises:
        ConfigError: There is none of that name.
    """
    if name == "UTC":  # known also where no table of zones is installed
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # unknown; leads out of the folder of zones; is a folder of them
        raise ConfigError(
            f"--timezone {name}", "is no known time zone", "an IANA name such as Europe/Amsterdam", "Correct it."
        ) from error


def local_hours(hours: pd.DataFrame, timezone: str) -> pd.Series:
    """Give the begin of each row's hour by the clock of a time zone; hours of zones like India's begin at half past.

    Raises:
        ConfigError: The time zone is unknown.
    """
    return hours["hour"].dt.tz_convert(zone_of(timezone)).dt.tz_localize(None)


def between(hours: pd.DataFrame, since: date | None, until: date | None, timezone: str = "UTC") -> pd.DataFrame:
    """Keep the rows of some days.

    Args:
        hours: The record.
        since: The first day; None: that of the record.
        until: The last day; None: that of the record.
        timezone: IANA name of the zone in which days begin and end.

    Raises:
        ConfigError: There are none, or the time zone is unknown.
    """
    days = local_hours(hours, timezone).dt.normalize()
    first, last = days.min(), days.max()
    kept = hours[days.between(pd.Timestamp(since or first), pd.Timestamp(until or last))]
    if kept.empty:
        found, wanted = (
            f"has {first:%Y_%m_%d} to {last:%Y_%m_%d}",
            f"days from {since or 'the first'} to {until or 'the last'}",
        )
        raise ConfigError("the record", found, wanted, "Correct --since and --until.")
    return kept


def daily_table(hours: pd.DataFrame, timezone: str = "UTC") -> DailyTable:
    """Add the hours of each animal and day up, over all cameras.

    Args:
        hours: The record.
        timezone: IANA name of the zone in which days begin and end: that of the dates that are compared with them.

    Raises:
        ConfigError: The time zone is unknown.
    """
    animal_codes, animals = pd.factorize(hours["animal"], sort=True)
    day_number = local_hours(hours, timezone).to_numpy().astype("datetime64[D]").astype(np.int64)
    first, last = int(day_number.min()), int(day_number.max())
    span = last - first + 1
    cell = animal_codes * span + (day_number - first)
    shape = (len(animals), span)

    def total(column: Floats) -> Floats:
        sums: Floats = np.bincount(cell, np.nan_to_num(column), shape[0] * shape[1]).astype(float).reshape(shape)
        return sums

    seen = total(hours["seen_s"].to_numpy(float))
    enough = seen >= _ENOUGH_SEEN_S

    def asked_s(name: str) -> Floats:
        """Time in which it was asked: hours of no behaviour head, and of no feeder in the picture, are no 0."""
        asked = total(hours["seen_s"].to_numpy(float) * hours[name].notna().to_numpy())
        return np.where(asked >= _ENOUGH_SEEN_S, asked, np.nan)

    names, values = [], []
    for name in _PER_HOUR:
        names.append(name)
        values.append(total(hours[name].to_numpy(float)) / (asked_s(name) / 3600))
    for name, weight in _MEANS.items():
        weights = hours[weight].to_numpy(float) * hours[name].notna().to_numpy()
        sums = total(weights)
        names.append(name)
        ratio = total(hours[name].to_numpy(float) * weights) / np.where(sums > 0, sums, np.nan)
        values.append(np.where(enough, ratio, np.nan))
    for name in hours.columns:
        if name.endswith("_s") and name not in NO_BEHAVIOURS:
            names.append(f"{name.removesuffix('_s')}_percent")
            values.append(100 * total(hours[name].to_numpy(float)) / asked_s(name))
    start = date(1970, 1, 1) + timedelta(days=first)
    days = tuple(start + timedelta(days=number) for number in range(span))
    return DailyTable(tuple(map(str, animals)), days, tuple(names), np.stack(values))


def own_change(values: Floats, window: int = 3, gap: int = 7, baseline: int = 21, least: int = BASELINE_DAYS) -> Floats:
    """Compare the last days of each animal with its own past; no day after t enters what is said of day t.

    Args:
        values: (F, A, T).
        window: Days that are averaged, t included.
        gap: Days between the newest day and the end of the baseline.
        baseline: Days of the baseline.
        least: Days of the baseline that must be there.

    Returns:
        (F, A, T): mean of the window less mean of the baseline, in the quantity's own unit; NaN where too little is
        known. The herd's weather is in it: compare animals of one day.
    """
    recent, _ = _trailing_mean(values, window, 0)
    past, known = _trailing_mean(values, baseline, gap)
    return np.where(known >= least, recent - past, np.nan)


def _trailing_mean(values: Floats, length: int, shift: int) -> tuple[Floats, Floats]:
    """Mean of the `length` days that end `shift` days before each, and how many of them are known."""
    there = np.isfinite(values)
    sums = _window_sum(np.where(there, values, 0), length, shift)
    known = _window_sum(there.astype(float), length, shift)
    return np.where(known > 0, sums / np.maximum(known, 1), np.nan), known


def _window_sum(values: Floats, length: int, shift: int) -> Floats:
    days = values.shape[-1]
    running = np.concatenate((np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)), axis=-1)
    end = np.clip(np.arange(days) + 1 - shift, 0, days)
    begin = np.clip(np.arange(days) + 1 - shift - length, 0, days)
    window: Floats = running[..., end] - running[..., begin]
    return window
