"""How sure a difference between two models is: an interval and a probability, each for days and for seeds.

Days are drawn (bootstrap) and exchanged between the models (permutation), paired, and as wholes: clips of one day show
the same animals. Scores are pooled anew in each draw, from counts. Source: Efron and Tibshirani, "An Introduction to
the Bootstrap", 1993, chapters 8 and 15.

Neither tells much of seeds, of which there are hardly ever more than three: three that happen to have one sign (a
quarter of the time) give draws of that sign alone, and no exchange of three can reach 5 %. Of several seeds Student's
t over their differences is asked, too; the wider interval and the greater probability count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from pl_distill.evaluation.caveats import MIN_CLIPS, MIN_SEEDS
from pl_distill.evaluation.mot import TrackingScores
from pl_distill.evaluation.results import Comparison, Results

LEVEL = 0.05
"""The most that a probability may be for a difference to be called established."""

DRAWS = 10_000
EXACT_DAYS = 12
"""With at most so many days every exchange is tried, with more a random sample of `DRAWS`."""


@dataclass(frozen=True)
class PairedDifference:
    """One model minus another, over all clips: student minus teacher, or a tracker minus a simpler one.

    Args:
        metric: ``mota`` or ``idf1``.
        difference: In percentage points.
        low: Lower end of the 95 % interval; None with a single day, which gives no idea of the spread.
        high: Upper end.
        p_value: Share of exchanges of the two, day by day, with a difference at least as large; of several seeds that
            of a t test over them, if it is greater.
        clips: How many clips it rests on.
        days: How many days they are of.
        seeds: How many runs with different seeds.
    """

    metric: str
    difference: float
    low: float | None
    high: float | None
    p_value: float
    clips: int
    days: int
    seeds: int

    @property
    def established(self) -> bool:
        """Whether there are enough seeds, and clips of different days, and interval and probability both say so.

        The interval alone does not do: of few days a percentile bootstrap makes it too narrow. Where nothing is there,
        at most 5 of 100 tables of three seeds and six days are called so, however days and seeds spread.
        """
        if self.days < MIN_CLIPS or self.seeds < MIN_SEEDS or self.low is None or self.high is None:
            return False
        return (self.low > 0 or self.high < 0) and self.p_value <= LEVEL


def compare_models(runs: Sequence[Results]) -> list[PairedDifference]:
    """Compare student and teacher in MOTA and IDF1.

    Args:
        runs: Evaluations of the same clips, one for each seed, each with teacher and student.

    Returns:
        One difference per metric; those without animals to find are left out.
    """
    return compare_pairs([(run.models["teacher"], run.models["student"]) for run in runs])


def compare_pairs(pairs: Sequence[tuple[Comparison, Comparison]]) -> list[PairedDifference]:
    """Compare two models in MOTA and IDF1: the second less the first.

    Args:
        pairs: The two over the same clips, once for each seed; clips that one of them lacks, or that nobody labelled,
            are left out.

    Returns:
        One difference per metric; those without animals to find are left out.
    """
    first = pairs[0][0]
    shared = [name for name in first.clips if all(name in one.clips for pair in pairs for one in pair)]
    names = [name for name in shared if first.clips[name].scores.scored_frames]  # the others have no label
    day_of = {name: _day(first, name) for name in names}
    days = sorted(set(day_of.values()))
    differences = []
    for metric, counts_of in (("mota", mota_counts), ("idf1", idf1_counts)):
        table = np.zeros((len(pairs), len(days), 2, 2))  # (seeds, days, first or second, part and whole)
        for seed, pair in enumerate(pairs):
            for name in names:
                for position, one in enumerate(pair):
                    table[seed, days.index(day_of[name]), position] += counts_of(one.clips[name].scores)
        if not sum(first.clips[name].scores.truth_boxes for name in names):
            continue
        low, high = interval(table) if len(days) > 1 else (None, None)
        observed = float(difference_of(table))
        differences.append(
            PairedDifference(metric, observed, low, high, p_value(table), len(names), len(days), len(pairs))
        )
    return differences


def mota_counts(scores: TrackingScores) -> tuple[float, float]:
    """Return part and whole of MOTA: what pools by adding."""
    return scores.truth_boxes - scores.misses - scores.false_positives - scores.id_switches, scores.truth_boxes


def idf1_counts(scores: TrackingScores) -> tuple[float, float]:
    """Return part and whole of IDF1: what pools by adding."""
    right = round((scores.idr or 0.0) * scores.truth_boxes / 100)  # boxes that carry the right identity
    return 2 * right, scores.truth_boxes + scores.track_boxes


def difference_of(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pool counts (..., seeds, days, 2, 2) and return the second minus the first in percentage points, (...)."""
    part, whole = np.moveaxis(table.sum(axis=(-4, -3)), -1, 0)
    ratio = 100 * np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    difference: NDArray[np.float64] = ratio[..., 1] - ratio[..., 0]
    return difference


def interval(table: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the difference, that of days or that of seeds, whichever reaches further at each end.

    Args:
        table: Counts (seeds, days, 2, 2).
    """
    generator = np.random.default_rng(0)
    seeds, days = table.shape[:2]
    drawn = [(generator.integers(seeds, size=seeds), generator.integers(days, size=days)) for _ in range(DRAWS)]
    of_seeds, of_days = (
        _times(np.array(part), size) for part, size in zip(zip(*drawn, strict=True), (seeds, days), strict=True)
    )
    pooled = np.einsum("ns,nd,sdij->nij", of_seeds, of_days, table, optimize=True)
    low, high = np.percentile(difference_of(pooled[:, None, None]), [2.5, 97.5])
    observed, error = float(difference_of(table)), _error_of_seeds(table)
    half = float(student_t.ppf(0.975, seeds - 1)) * error if error > 0 else 0.0
    return min(float(low), observed - half), max(float(high), observed + half)


def p_value(table: NDArray[np.float64]) -> float:
    """Return the probability of a difference at least as large by chance, that of days or of seeds, if it is greater.

    Of days it is the share of exchanges of the two models, day by day; of seeds that of a two-sided t test.

    Args:
        table: Counts (seeds, days, 2, 2).
    """
    days = table.shape[1]
    if days <= EXACT_DAYS:
        choices = np.array(list(product((False, True), repeat=days)))
    else:
        choices = np.random.default_rng(0).random((DRAWS, days)) < 0.5
        choices[0] = False  # what was observed is one of the possible outcomes
    observed = abs(float(difference_of(table)))
    by_day = table.sum(axis=0)
    exchanged = difference_of(np.where(choices[..., None, None], by_day[:, ::-1], by_day)[:, None])  # one seed: the sum
    of_days = float(np.mean(abs(exchanged) >= observed - 1e-9))
    error = _error_of_seeds(table)
    return max(of_days, float(2 * student_t.sf(observed / error, len(table) - 1))) if error > 0 else of_days


def _times(drawn: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Return how often each of `size` places is among those of a draw: (N, size), of (N, draws)."""
    times: NDArray[np.float64] = (drawn[..., None] == np.arange(size)).sum(axis=1).astype(np.float64)
    return times


def _error_of_seeds(table: NDArray[np.float64]) -> float:
    """Return the standard error of the difference over seeds, in percentage points; 0 with a single one."""
    if len(table) < 2:
        return 0.0
    return float(difference_of(table[:, None]).std(ddof=1)) / float(np.sqrt(len(table)))


def _day(model: Comparison, clip: str) -> str:
    replay = model.clips[clip].replay
    return clip if replay is None else replay.day


def show_difference(item: PairedDifference | None) -> str:
    """Return a difference as tables show it: ``-1.5 [-3.0, +0.1]``, a dash where there is none."""
    if item is None:
        return "-"
    between = "" if item.low is None or item.high is None else f" [{item.low:+.1f}, {item.high:+.1f}]"
    return f"{item.difference:+.1f}{between}"


def show_score(value: float | None, item: PairedDifference | None) -> str:
    """Return a percentage as tables show it: ``71.2 (-1.5 [-3.0, +0.1])``, a dash where it is undefined."""
    if value is None:
        return "-"
    if item is None:
        return f"{value:.1f}"
    return f"{value:.1f} ({show_difference(item)})"
