"""Scores of re-identification: rank-1, mean average precision, false new and false merge, IDF1 over days.

Rank-1 and mAP as in Zheng et al., "Scalable Person Re-identification" (ICCV 2015); IDF1 as in Ristani et al. (2016),
over one tracklet an animal and day. Intervals are of Student's t with as many degrees of freedom as there are animals
but one, and the standard error of draws of animals with replacement, never of queries; where the animals are of several
pens, of whole pens: animals of one pen share its light, its dirt and its company. (Percentiles of the draws held the
truth in 84 to 88 of 100 herds of eight.) Where no animal differs from another draws say nothing, and the interval is
what so many alike leave open.

IDF1 of a draw: a tracklet shows one animal, so that right, false and missing identities each belong to one. Names are
matched with animals once, in the whole herd (where two matchings are equally good, as scipy does). Of each animal, its
tracklets, those with a name and those with the name that is matched with it are counted, and the counts of the animals
drawn are added up. A wrong name is thus a false identity of the animal whose tracklet carries it, not of its owner.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import t as student_t

from pl_distill.reid.matching import MatchPolicy, Scores, match_frame, verdicts
from pl_distill.reid.storage import Vectors

Floats = NDArray[np.float64]
DRAWS = 1000


@dataclass(frozen=True)
class Share:
    """A share in percent with its 95 % interval over animals, or over pens where there are several.

    Args:
        percent: Mean over animals; IDF1 is that of all tracklets.
        low: Lower end; of 100 % a bound, "at least".
        high: Upper end; of 0 % a bound, "at most".
    """

    percent: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.percent == 0:
            return f"0.0 (at most {self.high:.1f})"
        if self.percent == 100:
            return f"100.0 (at least {self.low:.1f})"
        return f"{self.percent:.1f} ({self.low:.1f} to {self.high:.1f})"


def share_of(hits: NDArray[np.generic], animals: NDArray[np.int64], pens: NDArray[np.int64] | None = None) -> Share:
    """Average hits or values of 0 to 1 within each animal, then over animals.

    Args:
        hits: (Q,), of queries.
        animals: (Q,), number of each query's animal.
        pens: Number of an animal -> number of its pen; None: all are of one.
    """
    names = np.unique(animals)
    values = np.asarray(hits, np.float64)
    means = np.array([values[animals == name].mean() for name in names])
    herds, units = _herds(names, pens)
    return _share(float(means.mean()), herds @ means / herds.sum(1), units)


def _share(value: float, drawn: Floats, units: int) -> Share:
    """Give a value of 0 to 1 with the interval that its draws (DRAWS,) of so many animals or pens leave."""
    if units < 2:
        return Share(100 * value, 0.0, 100.0)
    half = float(student_t.ppf(0.975, units - 1) * drawn.std() * np.sqrt(units / (units - 1)))
    low, high = max(value - half, 0.0), min(value + half, 1.0)
    if half < 1e-9:
        other = 1 - 0.05 ** (1 / units)  # part of all that may be quite otherwise: with 5 % none of it is among these
        low, high = value * (1 - other), value + (1 - value) * other
    return Share(100 * value, 100 * low, 100 * high)


def _herds(names: NDArray[np.int64], pens: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], int]:
    """Draw herds with replacement, of pens if there are several.

    Returns:
        (DRAWS, A) how often each animal is in each herd, and of how many animals or pens was drawn.
    """
    places = np.arange(len(names))
    if pens is not None and len(np.unique(pens[names])) > 1:
        places = np.unique(pens[names], return_inverse=True)[1]
    units = int(places.max()) + 1
    drawn = np.random.default_rng(0).integers(units, size=(DRAWS, units))  # the same every time
    times = np.stack([np.bincount(row, minlength=units) for row in drawn])
    return np.asarray(times[:, places], np.int64), units


@dataclass(frozen=True)
class OpenSet:
    """What a threshold and a margin do to queries of days that had no part in their choice; the animals are the same.

    Args:
        recognised: Known animals that get their own name.
        false_new: Known animals taken for new.
        wrong: Known animals taken for another.
        false_merge: New animals taken for a known one.
        unsure: No verdict yet, known and new in equal parts.
    """

    recognised: Share
    false_new: Share
    wrong: Share
    false_merge: Share
    unsure: Share


def open_set(
    scores: Scores, truth: NDArray[np.int64], policy: MatchPolicy, pens: NDArray[np.int64] | None = None
) -> OpenSet:
    """Judge each query once with its animal in the gallery and once without it; `pens` as for `share_of`."""
    without = scores.copy()
    without[np.arange(len(scores)), truth] = -np.inf
    taken, right, unsure = verdicts(scores, truth, policy)
    merged, _, unsure_new = verdicts(without, np.full(len(truth), -1), policy)
    return OpenSet(
        share_of(right, truth, pens), share_of(~taken & ~unsure, truth, pens), share_of(taken & ~right, truth, pens),
        share_of(merged, truth, pens), share_of((unsure.astype(float) + unsure_new) / 2, truth, pens),
    )  # fmt: skip


def idf1(truth: NDArray[np.int64], found: NDArray[np.int64], pens: NDArray[np.int64] | None = None) -> Share:
    """Give IDF1 of tracklets whose true and found identities are (N,); -1 is one without; `pens` as for `share_of`."""
    names, codes = np.unique(truth, return_inverse=True)
    given = found >= 0
    others, places = np.unique(found[given], return_inverse=True)
    table = np.zeros((len(names), len(others)))
    np.add.at(table, (codes[given], places), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    right = np.zeros(len(names))  # IDTP; none of an animal without a name of its own
    right[rows] = table[rows, columns]
    asked = np.bincount(codes) + table.sum(1)  # 2 IDTP + IDFN + IDFP
    herds, units = _herds(names, pens)
    return _share(float(2 * right.sum() / asked.sum()), 2 * (herds @ right) / (herds @ asked), units)


def idf1_floors(visits: int) -> tuple[float, float]:
    """Give the IDF1 in percent of so many visits where nobody is ever recognised.

    Returns:
        Where everybody is new at each visit, 100 / n; where all are named at the first one and nobody is sure of
        anybody later, 200 / (n + 1): what is not named is no false name, so that caution has the higher floor.
    """
    return 100 / visits, 200 / (visits + 1)


def link_days(
    days: Sequence[int],
    tracklets: Callable[[int], tuple[NDArray[np.int64], list[Vectors]]],
    score: Callable[[Vectors], tuple[Scores, Sequence[str]]],
    learn: Callable[[str, int, Vectors], None],
    policy: MatchPolicy,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Name the animals of one day after the other, from what was named before; nobody says who they are.

    Args:
        days: In order.
        tracklets: Day -> true animals (N,) and the embeddings of each.
        score: Scores (V, A) of embeddings with the gallery of this moment, and its animals.
        learn: Told the name, day and embeddings of each tracklet that got one.
        policy: Threshold and margin; an unsure tracklet stays without a name.

    Returns:
        True and found identities of all tracklets, (N,) each.
    """
    truth, found = [], []
    made = 0
    for day in days:
        animals, seen = tracklets(day)
        scored = [score(vectors) for vectors in seen]
        names = scored[0][1] if scored else []
        table = np.stack([one[0].mean(0) for one in scored]) if scored else np.zeros((0, 0), np.float32)
        for animal, match, vectors in zip(animals, match_frame(table, names, policy), seen, strict=True):
            name = match.animal if match.verdict == "known" else None
            if match.verdict == "new":
                name, made = f"{made:06d}", made + 1
            truth.append(int(animal))
            found.append(-1 if name is None else int(name))
            if name is not None:
                learn(name, day, vectors)
    return np.array(truth), np.array(found)
