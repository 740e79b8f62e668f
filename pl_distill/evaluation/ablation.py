"""Many students, one table: each arm of an ablation beside a reference, paired over days and seeds.

A cell is one arm trained with one seed. Whatever is measured is kept as part and whole of each clip, so that scores are
pooled from counts, and compared by recording day and by seed as in `pl_distill.evaluation.statistics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pl_distill.evaluation.caveats import count_of
from pl_distill.evaluation.results import Comparison, Results
from pl_distill.evaluation.statistics import difference_of, idf1_counts, interval, mota_counts, p_value
from pl_distill.evaluation.tables import write_both

SCHEMA = 1


@dataclass(frozen=True)
class Metric:
    """One column of the table.

    Args:
        name: Key in JSON.
        label: For people, with its unit.
        digits: How many are shown.
        factor: A share (0 to 1) times this is what is shown.
        more_is_better: Which way is up.
    """

    name: str
    label: str
    digits: int
    factor: float = 100.0
    more_is_better: bool = True


METRICS = (
    Metric("level_cosine", "cosine of levels", 4, 1.0),
    Metric("level_relative_error", "relative error of levels", 4, 1.0, more_is_better=False),
    Metric("mota", "MOTA %", 2),
    Metric("idf1", "IDF1 %", 2),
    Metric("mota_vs_teacher", "MOTA % against the teacher's tracks", 2),
    Metric("idf1_vs_teacher", "IDF1 % against the teacher's tracks", 2),
)


@dataclass(frozen=True)
class Share:
    """What one clip adds to a score: the sum of `part` over that of `whole`.

    Args:
        day: Recording day of the clip.
        part: In the unit of `whole`.
        whole: Frames, or boxes.
    """

    day: str
    part: float
    whole: float


Cell = Mapping[str, Mapping[str, Share]]
"""Metric -> clip -> its share."""


@dataclass(frozen=True)
class Entry:
    """One arm in one metric.

    Args:
        mean: Pooled over clips and seeds; None where nothing could be measured.
        by_seed: The same of each seed.
        difference: Less that of the reference; None for the reference itself.
        low: Lower end of the 95 % interval of the difference; None with a single day.
        high: Upper end.
        p_value: Probability of a difference at least as large by chance, of days or of seeds, whichever is greater.
    """

    mean: float | None
    by_seed: list[float | None]
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class AblationTable:
    """The table.

    Args:
        settings: What was trained and scored, as plain values.
        reference: The arm that the others are compared with.
        seeds: Of the cells, in order.
        clips: Metric -> how many clips it rests on.
        days: Metric -> of how many days they are.
        arms: Arm -> metric -> entry.
        seconds: Arm -> mean wall time of the processes that have trained and scored a cell to its end.
    """

    settings: dict[str, Any]
    reference: str
    seeds: list[int]
    clips: dict[str, int]
    days: dict[str, int]
    arms: dict[str, dict[str, Entry]]
    seconds: dict[str, float]


def tracking_shares(results: Results) -> dict[str, dict[str, Share]]:
    """Return MOTA and IDF1 of an evaluation's student, against truth and against its teacher, clip by clip."""
    student = results.models["student"]
    days = {name: name if clip.replay is None else clip.replay.day for name, clip in student.clips.items()}
    compared: list[tuple[str, Comparison | None]] = [("", student), ("_vs_teacher", results.student_vs_teacher)]
    return {
        name + suffix: {
            clip: Share(days[clip], *counts(result.scores))
            for clip, result in comparison.clips.items()
            if result.scores.scored_frames  # the others have no label
        }
        for suffix, comparison in compared
        if comparison is not None
        for name, counts in (("mota", mota_counts), ("idf1", idf1_counts))
    }


def make_table(
    cells: Mapping[str, Sequence[Cell]],
    reference: str,
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> AblationTable:
    """Compare every arm with the reference.

    Args:
        cells: Arm -> its cells in the order of `seeds`, all over the same clips.
        reference: An arm of `cells`.
        seeds: One for each cell of an arm.
        settings: Goes into the table.
        seconds: Arm -> mean time of a cell.
    """
    clips: dict[str, int] = {}
    days: dict[str, int] = {}
    arms: dict[str, dict[str, Entry]] = {arm: {} for arm in cells}
    for metric in METRICS:
        first = cells[reference][0].get(metric.name, {})
        if not first:
            continue
        clips[metric.name], days[metric.name] = len(first), len({share.day for share in first.values()})
        tables = {arm: _counts([cell[metric.name] for cell in cells[arm]]) for arm in cells}
        for arm, table in tables.items():
            against = None if arm == reference else tables[reference]
            arms[arm][metric.name] = _entry(metric, table, against)
    return AblationTable(dict(settings), reference, list(seeds), clips, days, arms, dict(seconds))


def _counts(cells: Sequence[Mapping[str, Share]]) -> NDArray[np.float64]:
    """Sum shares by day: (seeds, days, 2), parts and wholes."""
    days = sorted({share.day for share in cells[0].values()})
    table = np.zeros((len(cells), len(days), 2))
    for seed, cell in enumerate(cells):
        for share in cell.values():
            table[seed, days.index(share.day)] += share.part, share.whole
    return table


def _entry(metric: Metric, table: NDArray[np.float64], reference: NDArray[np.float64] | None) -> Entry:
    by_seed = [_ratio(metric, one) for one in table]
    mean = _ratio(metric, table.sum(axis=0))
    if reference is None or mean is None or _ratio(metric, reference.sum(axis=0)) is None:
        return Entry(mean, by_seed)
    both = np.stack([reference, table], axis=2)  # (seeds, days, 2, 2): the reference, then this arm
    unit = metric.factor / 100  # differences come in percent
    low, high = interval(both) if both.shape[1] > 1 else (None, None)
    return Entry(
        mean,
        by_seed,
        unit * float(difference_of(both)),
        None if low is None else unit * low,
        None if high is None else unit * high,
        p_value(both),
    )


def _ratio(metric: Metric, table: NDArray[np.float64]) -> float | None:
    part, whole = table.sum(axis=0)
    return metric.factor * float(part / whole) if whole > 0 else None


def write_table(folder: Path, table: AblationTable) -> tuple[Path, Path]:
    """Write ``ablation.json`` and ``ablation.md`` into `folder`, each whole or not at all, and return their paths."""
    return write_both(folder, "ablation", {"schema": SCHEMA, **asdict(table)}, format_markdown(table))


def format_markdown(table: AblationTable) -> str:
    """Return the table as Markdown: one line for each arm."""
    metrics = [metric for metric in METRICS if metric.name in table.arms[table.reference]]
    marks = [f"{metric.label} {'↑' if metric.more_is_better else '↓'}" for metric in metrics]
    lines = [
        f"| loss | {' | '.join(marks)} | seconds |",
        f"|---|{'---|' * len(metrics)}---|",
    ]
    for arm, entries in table.arms.items():
        cells = " | ".join(_show(metric, entries[metric.name]) for metric in metrics)
        lines.append(f"| {arm} | {cells} | {table.seconds[arm]:.0f} |")
    rests = "; ".join(
        f"{metric.name}: {count_of(table.clips[metric.name], 'clip')} of {count_of(table.days[metric.name], 'day')}"
        for metric in metrics
    )
    lines += [
        "",
        f"Mean over seeds {', '.join(map(str, table.seeds))}; in brackets the difference to `{table.reference}` and "
        "its 95 % interval, paired over days and seeds: that of a bootstrap, or of Student's t over the seeds where it "
        "reaches further. An interval that excludes 0 is marked *; with many arms some do so by chance.",
        f"{rests}.",
        "Seconds: mean wall time of the processes that have finished a cell, with their waiting for another that "
        "streams the teacher, without what a killed one spent before.",
        "",
        *(f"- {name}: {value}" for name, value in table.settings.items()),
        "",
    ]
    return "\n".join(lines)


def _show(metric: Metric, entry: Entry) -> str:
    if entry.mean is None:
        return "-"
    text = f"{entry.mean:.{metric.digits}f}"
    if entry.difference is None:
        return text
    change = f"{entry.difference:+.{metric.digits}f}"
    if entry.low is None or entry.high is None:
        return f"{text} ({change})"
    sure = "*" if entry.low > 0 or entry.high < 0 else ""
    return f"{text} ({change} [{entry.low:+.{metric.digits}f}, {entry.high:+.{metric.digits}f}]{sure})"
