"""From scores to identities: one animal for one track of a frame, a new one, or not sure yet.

The assignment is the optimal one-to-one matching (scipy's Jonker-Volgenant); threshold and margin are chosen on
validation days by `calibrate`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pl_distill.errors import ConfigError

Verdict = Literal["known", "new", "unsure"]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class MatchPolicy:
    """When a track is an animal of the gallery.

    Args:
        threshold: Score from which on it is a known animal; below it is a new one. None takes what the gallery was
            calibrated to.
        margin: By how much the animal must lead every other that is free; with less it is not sure. Of several tracks
            at once: by how much they all together lead what they would be if this one were another animal. None as of
            the threshold.
        herd: The most animals that there can be; beyond it no new one is made. None: any number.
    """

    threshold: float | None = None
    margin: float | None = None
    herd: int | None = None

    def __post_init__(self) -> None:
        if (
            (self.threshold is not None and not -1 <= self.threshold <= 1)
            or (self.margin is not None and not 0 <= self.margin <= 2)
            or (self.herd is not None and self.herd < 1)
        ):
            raise ConfigError(
                "matching", f"is {self}", "a threshold of -1 to 1, a margin of 0 to 2, a herd of 1 or more",
                "Take what `reid year` or `calibrate` found.",
            )  # fmt: skip

    @property
    def limits(self) -> tuple[float, float]:
        """Threshold and margin.

        Raises:
            ConfigError: One of them was left to a gallery.
        """
        if self.threshold is None or self.margin is None:
            raise ConfigError("matching", f"is {self}", "a threshold and a margin", "Give both.")
        return self.threshold, self.margin


@dataclass(frozen=True)
class Match:
    """What a track was found to be.

    Args:
        verdict: known, new or unsure.
        animal: The animal of the verdict "known"; the best guess of "unsure", None without one; None for "new".
        score: Of the best free animal; NaN without one.
        margin: Its lead over the next, see `MatchPolicy`; infinite without one.
    """

    verdict: Verdict
    animal: str | None
    score: float
    margin: float


def match_frame(
    scores: Scores, animals: Sequence[str], policy: MatchPolicy, taken: Collection[str] = ()
) -> list[Match]:
    """Match the tracks of one frame with animals, each animal with one track at most.

    Args:
        scores: (T, A) of tracks with animals.
        animals: (A,) names.
        policy: Threshold and margin.
        taken: Animals that other tracks of this camera hold already; who looks like one of them and like nobody that is
            free is not sure, with no guess.

    Returns:
        One match for each track.
    """
    is_held = np.array([name in taken for name in animals], bool)
    free = np.flatnonzero(~is_held)
    tracks = len(scores)
    threshold, least_margin = policy.limits
    # It may be a second mask of an animal in view: a new name for that would be its double for ever.
    is_double = np.asarray(scores, np.float64)[:, is_held].max(axis=1, initial=-np.inf) >= threshold
    if not len(free):
        full = policy.herd is not None and len(animals) >= policy.herd
        return [Match("unsure" if full or double else "new", None, float("nan"), float("inf")) for double in is_double]
    offered = np.asarray(scores, np.float64)[:, free]
    room = tracks if policy.herd is None else max(0, policy.herd - len(animals))
    # A column for each animal that may be new: it costs what the worst accepted match would give.
    table = np.concatenate((offered, np.full((tracks, room), threshold)), axis=1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    chosen = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    matches = []
    for track in range(tracks):
        column = chosen.get(track)
        if column is None:  # more tracks than animals in a herd that is complete
            matches.append(Match("unsure", None, float(offered[track].max()), 0.0))
        elif column >= len(free):
            verdict: Verdict = "unsure" if is_double[track] else "new"
            matches.append(Match(verdict, None, float(offered[track].max()), float("inf")))
        else:
            score, margin = float(offered[track, column]), _lead(table, chosen, track, len(free))
            sure = margin >= least_margin and (score >= threshold or room == 0)
            matches.append(Match("known" if sure else "unsure", animals[int(free[column])], score, margin))
    return matches


_UNSURE_COST = 0.3  # of no verdict; a wrong one costs 1
_STEPS = 25  # margins to try in a calibration, and twice as many thresholds
_NEVER = -1e6
"""A score that no assignment takes while it can do otherwise."""


def _lead(table: NDArray[np.float64], chosen: Mapping[int, int], track: int, animals: int) -> float:
    """Return what the assignment `chosen` loses if this track must be another animal of the first columns."""
    other = table.copy()
    other[track, chosen[track]] = _NEVER
    other[track, animals:] = _NEVER
    rows, columns = linear_sum_assignment(other, maximize=True)
    best, second = sum(table[row, column] for row, column in chosen.items()), float(other[rows, columns].sum())
    return float("inf") if second < _NEVER / 2 else float(best - second)


@dataclass(frozen=True)
class Calibration:
    """A threshold and a margin with what they cost on the queries that chose them, shares of 0 to 100 %.

    Args:
        policy: The choice.
        right: Known animals recognised.
        false_new: Known animals taken for new ones.
        wrong: Known animals taken for another.
        false_merge: New animals taken for a known one.
        unsure: Queries without a verdict, known and new in equal parts.
    """

    policy: MatchPolicy
    right: float
    false_new: float
    wrong: float
    false_merge: float
    unsure: float


def verdicts(
    scores: Scores, truth: NDArray[np.int64], policy: MatchPolicy
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Judge single queries: whether each is taken for an animal, whether that is the right one, whether it is unsure.

    Args:
        scores: (Q, A), A at least 2.
        truth: (Q,) columns of the right animals; -1 for an animal that is not in the gallery.
        policy: Threshold and margin.
    """
    threshold, margin = policy.limits
    order = np.partition(scores, scores.shape[1] - 2, axis=1)
    best, second = order[:, -1], order[:, -2]
    above = best >= threshold
    sure = best - second >= margin
    return above & sure, above & sure & (scores.argmax(1) == truth), above & ~sure


def calibrate(scores: Scores, truth: NDArray[np.int64]) -> Calibration:
    """Choose threshold and margin on validation queries; each query counts once as known and once as new.

    As new it is asked without its own animal: the gallery then holds everybody but it.

    Args:
        scores: (Q, A) of queries with a gallery that holds their animals; A at least 3.
        truth: (Q,) columns of the right animals.

    Raises:
        ConfigError: There are no queries, or fewer than three animals.
    """
    if not len(scores) or scores.shape[1] < 3:
        raise ConfigError(
            "calibration", f"has {len(scores)} queries of {scores.shape[1]} animals", "queries of 3 animals or more",
            "Give it more validation days.",
        )  # fmt: skip
    without = scores.copy()
    without[np.arange(len(scores)), truth] = -np.inf
    nobody = np.full(len(scores), -1)
    pool = np.concatenate((scores.max(1), without.max(1)))
    ordered = np.sort(scores, axis=1)
    margins = np.unique(
        np.concatenate(([0.0], np.quantile(ordered[:, -1] - ordered[:, -2], np.linspace(0, 0.5, _STEPS))))
    )
    best: Calibration | None = None
    best_cost = np.inf
    for threshold in np.quantile(pool, np.linspace(0, 1, 2 * _STEPS)):
        for margin in margins:
            policy = MatchPolicy(float(np.clip(threshold, -1, 1)), float(margin))
            taken, right, unsure = verdicts(scores, truth, policy)
            merged, _, unsure_new = verdicts(without, nobody, policy)
            wrong, false_new = taken & ~right, ~taken & ~unsure
            cost = (wrong | false_new).mean() + merged.mean() + _UNSURE_COST * (unsure.mean() + unsure_new.mean())
            if cost < best_cost:
                shares = (100 * float(part.mean()) for part in (right, false_new, wrong, merged))
                right_, new_, wrong_, merge_ = shares
                best_cost = float(cost)
                best = Calibration(policy, right_, new_, wrong_, merge_, 50 * float(unsure.mean() + unsure_new.mean()))
    assert best is not None
    return best
