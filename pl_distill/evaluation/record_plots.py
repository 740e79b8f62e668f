"""Pictures of a record for farmers and reviewers: timeline, day by hour, drift with events, associations."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from datamodules.files import atomic_path
from pl_distill.reid.association import Association
from pl_distill.reid.daily import NO_BEHAVIOURS, DailyTable, local_hours
from pl_distill.reid.outcomes import Outcome

_COLOURS = {
    "sleep": "#31456a", "lying": "#6d86b3", "standing": "#b9b4a5", "investigating": "#8fae6b", "walk": "#3f8f4f",
    "eat": "#e0a33a", "drink": "#4fb0c6", "nose_to_nose": "#c98bb9", "fight": "#b5382f",
}  # fmt: skip
_REST = "#d8d5cd"
_INK, _EVENT = "#22262c", "#b5382f"
_LONGEST_WORDS = 44  # characters that the height of the drift's axes takes
_STYLE: Any = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#888", "text.color": _INK,
    "axes.labelcolor": _INK, "xtick.color": "#555", "ytick.color": "#555", "legend.frameon": False,
    "axes.titlesize": 11, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "text.parse_math": False,  # names and reasons are the farm's: two dollars in them are no formula
}  # fmt: skip


@contextmanager
def canvas(path: Path, width: float, height: float, rows: int = 1, **options: Any) -> Iterator[NDArray[Any]]:
    """Give `rows` axes, one above the other, and write the PNG afterwards, whole or not at all."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
        yield np.atleast_1d(figure.subplots(rows, 1, **options))
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", facecolor="white")


def draw_timeline(path: Path, table: DailyTable, animal: str, outcomes: Sequence[Outcome] = ()) -> Path:
    """Draw an animal's days: time budget in % of the tracked time, way, visits; the herd's median is grey."""
    row = table.animals.index(animal)
    budget = [name for name in table.names if name.endswith("_percent")]
    budget.sort(key=lambda name: list(_COLOURS).index(_short(name)) if _short(name) in _COLOURS else len(_COLOURS))
    days = np.array(table.days, dtype="datetime64[D]")
    with canvas(path, 11, 7.2, 3, sharex=True, height_ratios=[2.2, 1, 1]) as (top, middle, bottom):
        shares = np.stack([_of(table, name)[row] for name in budget]) if budget else np.zeros((0, len(days)))
        smooth = np.stack([_smooth(share) for share in shares]) if budget else shares
        colours = [_COLOURS.get(_short(name), _REST) for name in budget]
        if budget:
            _stack(top, days, smooth, colours, [_words(name) for name in budget])
        top.set(ylim=(0, 100), ylabel="% of tracked time", title=f"{animal}: what it does, day by day (mean of 3 days)")
        handles, labels = top.get_legend_handles_labels()
        if handles:
            top.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5))
        way = _of(table, "distance_m")
        herd = pd.DataFrame(way).median(axis=0).to_numpy(float)
        _line(middle, days, _smooth(herd), "#aaa", 2, "herd's median")
        middle.plot(days, way[row], color="#3f8f4f", lw=0.6, alpha=0.5)
        _line(middle, days, _smooth(way[row]), "#3f8f4f", 1.8, animal)
        middle.set(ylabel="metres per hour", ylim=(0, None), title="Way walked")
        middle.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        for name, colour in (("feeder_visits", _COLOURS["eat"]), ("drinker_visits", _COLOURS["drink"])):
            visits = _smooth(_of(table, name)[row])
            known = "" if np.isfinite(visits).any() else " (none in the picture)"
            _line(bottom, days, visits, colour, 1.5, f"{_words(name)}{known}")
        bottom.set(ylabel="per hour", ylim=(0, None), title="Visits")
        bottom.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        for axes in (top, middle, bottom):
            _mark(axes, [one for one in outcomes if one.animal == animal], label=axes is middle)
        _date_axis(bottom, _number(days[0]) - 0.5, _number(days[-1]) + 0.5)
    return path


def behaviours_in(hours: pd.DataFrame) -> list[str]:
    """Return the behaviours that a record counts, without ``_s``: none where no head named any."""
    return [name.removesuffix("_s") for name in hours.columns if name.endswith("_s") and name not in NO_BEHAVIOURS]


def draw_heat_map(
    path: Path, hours: pd.DataFrame, animal: str, behaviours: Sequence[str] = (), timezone: str = "UTC"
) -> Path:
    """Draw behaviours of an animal by day (across) and hour (down), in % of the tracked time.

    Args:
        path: The PNG.
        hours: The record.
        animal: Its name.
        behaviours: Columns without ``_s``, at least one; none: the three on which the animal spends most time.
        timezone: IANA name of the zone of days and hours.
    """
    mine = hours[hours["animal"] == animal]
    known = behaviours_in(mine)
    chosen = list(behaviours) or sorted(known, key=lambda name: -float(mine[f"{name}_s"].sum()))[:3]
    local = local_hours(mine, timezone)
    days = pd.date_range(local.min().normalize(), local.max().normalize())
    mine = mine.assign(day=local.dt.normalize(), hour_of_day=local.dt.hour)
    extent = (_number(days[0]), _number(days[-1]) + 1, 24, 0)
    with canvas(path, 11, 1 + 2.1 * len(chosen), len(chosen), sharex=True) as rows:
        for axes, name in zip(rows, chosen, strict=True):
            grid = _percent_by_hour(mine, name, days)
            top = max(1.0, float(np.nanpercentile(grid, 99))) if np.isfinite(grid).any() else 1.0
            image = axes.imshow(
                grid, aspect="auto", extent=extent, cmap="viridis", vmin=0, vmax=top, interpolation="nearest"
            )
            axes.set(ylabel=f"hour ({timezone})", yticks=[0, 6, 12, 18, 24], title=f"{animal}: {_words(name)}")
            axes.get_figure().colorbar(image, ax=axes, label="% of tracked time", pad=0.01)
        rows[-1].xaxis_date()
        _date_axis(rows[-1], *extent[:2])
    return path


def _percent_by_hour(mine: pd.DataFrame, behaviour: str, days: pd.DatetimeIndex) -> NDArray[np.float64]:
    """Share of a behaviour in the tracked time, (24, T) in %; NaN where the animal, or a head to name it, was away."""
    grid = np.full((24, len(days)), np.nan)
    asked = mine[mine[f"{behaviour}_s"].notna()]
    sums = asked.groupby(["day", "hour_of_day"])[[f"{behaviour}_s", "seen_s"]].sum()
    for (day, hour), (seconds, seen) in zip(sums.index, sums.to_numpy(), strict=True):
        if seen > 0:
            grid[hour, (day - days[0]).days] = 100 * seconds / seen
    return grid


def draw_drift(
    path: Path,
    table: DailyTable,
    animal: str,
    outcomes: Sequence[Outcome] = (),
    changes: Sequence[tuple[np.datetime64, str]] = (),
) -> Path:
    """Draw how far an animal's looks have moved from its first day, with what happened to it.

    Args:
        path: The PNG.
        table: The record by days.
        animal: Its name.
        outcomes: Of the farm's table.
        changes: Times and words of merges and splits in the pool; those of days outside of the table are left out.
    """
    days, drift = np.array(table.days, dtype="datetime64[D]"), _of(table, "drift")
    row = table.animals.index(animal)
    with canvas(path, 11, 3.6) as (axes,):
        for other, values in enumerate(drift):
            if other != row:
                _line(axes, days, _smooth(values), "#ccc", 0.8, "the others" if other == (row == 0) else None)
        axes.plot(days, drift[row], color="#31456a", lw=0.6, alpha=0.5)
        _line(axes, days, _smooth(drift[row]), "#31456a", 2, animal)
        axes.set(ylabel="1 - cosine with first day", ylim=(0, None), title=f"{animal}: how far its looks have moved")
        _mark(axes, [one for one in outcomes if one.animal == animal], label=True)
        for when, words in changes:
            if not days[0] <= when.astype("datetime64[D]") <= days[-1]:  # when it was typed, perhaps long afterwards
                continue
            axes.axvline(when, color="#777", ls=":", lw=1)
            told = axes.annotate(
                _shortened(words), (when, 0.02), xycoords=("data", "axes fraction"), rotation=90, fontsize=8,
                color="#777", xytext=(3, 0), textcoords="offset points",
            )  # fmt: skip
            told.set_in_layout(False)
        axes.legend(loc="upper left")
        _date_axis(axes, _number(days[0]) - 0.5, _number(days[-1]) + 0.5)
    return path


def draw_lead_times(path: Path, found: Association, most: int = 4) -> Path:
    """Draw the effect by days before the outcome, of the quantities that show it best; filled dots are significant."""
    strongest: dict[str, float] = {}
    for one in found.findings:
        strongest[one.quantity] = min(strongest.get(one.quantity, 2.0), one.p_corrected - 1e-6 * abs(one.effect))
    names = sorted(strongest, key=lambda name: strongest[name])[:most]
    with canvas(path, 9, 1 + 1.9 * len(names), len(names), sharex=True) as rows:
        for axes, name in zip(rows, names, strict=True):
            mine = sorted((one for one in found.findings if one.quantity == name), key=lambda one: one.lead_days)
            leads = np.array([one.lead_days for one in mine])
            effects = np.array([one.effect for one in mine])
            sure = np.array([one.p_corrected <= found.level for one in mine])
            axes.axhline(0, color="#999", lw=0.8)
            axes.fill_between(
                leads, [one.low for one in mine], [one.high for one in mine], color="#31456a", alpha=0.15, lw=0
            )
            axes.plot(leads, effects, color="#31456a", lw=1.5)
            axes.plot(leads[sure], effects[sure], "o", color=_EVENT)
            axes.plot(leads[~sure], effects[~sure], "o", color="white", mec="#31456a")
            before = found.shown_before(name)
            told = "not shown" if before is None else f"shown {before} days before"
            axes.set(title=f"{_words(name)}: {told}", ylabel="effect (SD)")
        rows[-1].set(xlabel=f"days before {found.kind} was found ({found.cases} cases, {found.animals} animals)")
        rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        rows[-1].invert_xaxis()  # shared by all rows; time goes to the right
    return path


def _of(table: DailyTable, name: str) -> NDArray[np.float64]:
    return np.asarray(table.values[table.names.index(name)])


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred mean of three days; NaN on a day that is not known itself."""
    smoothed = pd.Series(values).rolling(3, center=True, min_periods=1).mean()
    return np.where(np.isfinite(values), smoothed.to_numpy(float), np.nan)


def _alone(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell the known days without a known neighbour: no line and no area leads to them."""
    around = np.pad(known, 1)
    return known & ~around[:-2] & ~around[2:]


def _line(
    axes: Axes, days: NDArray[np.datetime64], values: NDArray[np.float64], colour: str, width: float, label: str | None
) -> None:
    axes.plot(days, values, color=colour, lw=width, label=label)
    alone = _alone(np.isfinite(values))
    if alone.any():  # nothing, unclipped, would take room in the layout
        axes.plot(days[alone], values[alone], "o", color=colour, ms=2 + 2 * width, clip_on=False)


def _stack(
    axes: Axes, days: NDArray[np.datetime64], shares: NDArray[np.float64], colours: list[str], labels: list[str]
) -> None:
    """Stack shares, (N, T), with gaps where a day has none."""
    known = np.asarray(np.isfinite(shares).any(axis=0), np.bool_)
    shares = np.where(known, np.nan_to_num(shares), np.nan)
    axes.stackplot(days, shares, colors=colours, labels=labels, lw=0)
    alone = _alone(known)
    below = np.zeros(np.count_nonzero(alone))
    for share, colour in zip(shares[:, alone], colours, strict=True):
        axes.bar(days[alone], share, 0.8, below, color=colour)
        below = below + share


def _short(name: str) -> str:
    return name.removesuffix("_percent").removesuffix("_s")


def _words(name: str) -> str:
    known = {"distance_m": "way walked", "feeder_s": "time at the feeder", "drinker_s": "time at a drinker"}
    return known.get(name, _short(name).replace("nose_to_nose", "nose-to-nose").replace("_", " "))


def _shortened(words: str) -> str:
    words = " ".join(words.split())
    return words if len(words) <= _LONGEST_WORDS else f"{words[: _LONGEST_WORDS - 1]}…"


def _mark(axes: Axes, outcomes: Sequence[Outcome], *, label: bool) -> None:
    for one in outcomes:
        when = _number(one.day)
        axes.axvline(when, color=_EVENT, lw=1.2, ls="--")
        if label:
            axes.annotate(
                one.kind, (when, 0.98), xycoords=("data", "axes fraction"), color=_EVENT, fontsize=9, va="top",
                xytext=(3, 0), textcoords="offset points",
            )  # fmt: skip


def _date_axis(axes: Axes, first: float, last: float) -> None:
    """Date the axis, and cut it to these times; ticks are whole days, however few there are."""
    axes.set_xlim(first, last)
    locator = mdates.AutoDateLocator(minticks=min(5, round(last - first)))  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        mdates.ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
        if last - first > 1
        else mdates.DateFormatter("%Y-%m-%d")  # type: ignore[no-untyped-call]  # the other would name midnight
    )


def _number(day: Any) -> float:
    """Give a day as matplotlib counts it."""
    return float(mdates.date2num(day))  # type: ignore[no-untyped-call]
