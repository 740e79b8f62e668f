"""Outcomes dealt out anew among the animals that could have had them: the effect of every deal, and intervals."""

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln

from pl_distill.errors import ConfigError
from pl_distill.reid.cases import Case, Flags, Floats, Indices
from pl_distill.reid.outcomes import Kind

_MOST_ROUNDS = 200  # of dealing, where deals have to be thrown away because nobody was left for an outcome


def deal(cases: Sequence[Case], herd: int, number: int, kind: Kind, rng: np.random.Generator) -> tuple[Indices, Flags]:
    """Deal the outcomes out anew, each among its eligible animals, in the order of their days, to nobody twice.

    Deals that leave nobody for an outcome, or nobody to compare with, are thrown away: the observed one is none.

    Returns:
        (1 + B, K) places of who gets each outcome, the observed ones first, and (1 + B, A) who gets any.

    Raises:
        ConfigError: Hardly any deal can be made.
    """
    observed = np.array([one.animal for one in cases])
    receivers, missing = [observed[None]], number
    for _ in range(_MOST_ROUNDS):
        taken = np.zeros((missing, herd), bool)
        dealt = np.empty((missing, len(cases)), np.int64)
        possible = np.ones(missing, bool)
        for place, one in enumerate(cases):
            lots = np.where(taken[:, one.eligible], -1.0, rng.random((missing, len(one.eligible))))
            drawn = lots.argmax(axis=1)
            possible &= lots[np.arange(missing), drawn] >= 0
            dealt[:, place] = one.eligible[drawn]
            taken[np.arange(missing), dealt[:, place]] = True
        if kind != "growth":
            for one in cases:
                possible &= ~taken[:, one.eligible].all(axis=1)
        receivers.append(dealt[possible])
        missing -= int(np.count_nonzero(possible))
        if not missing:
            break
    else:
        raise ConfigError(
            f"kind '{kind}'", f"has outcomes that could have happened in hardly any other way ({missing} of {number} "
            "deals are missing)", "more animals that were there on the days of several outcomes", "Watch more animals.",
        )  # fmt: skip
    everything = np.concatenate(receivers)
    taken = np.zeros((len(everything), herd), bool)
    np.put_along_axis(taken, everything, True, axis=1)
    return everything, taken


def effects_of(cases: Sequence[Case], receivers: Indices, taken: Flags | None) -> tuple[Floats, Floats, Floats]:
    """Effects of every deal.

    Args:
        cases: K of them.
        receivers: (1 + B, K), the observed ones first.
        taken: (1 + B, A) who gets any: compared is with the others. None: compared is with all who are eligible.

    Returns:
        (Q, 1 + B) effects in the quantities' own units; (Q, 1 + B) how much of an effect of 1 in the cases each deal
        shows; (2, Q) sum of squares of those who are compared with around their mean of the day, and its degrees of
        freedom.
    """
    tests, deals = len(cases[0].known), len(receivers)
    total, shift, weight = np.zeros((tests, deals)), np.zeros((tests, deals)), np.zeros(tests)
    squares = np.zeros((2, tests))
    for place, one in enumerate(cases):
        # An effect shows in each case on the day of its own outcome; what it does to other days is not asked.
        of_day = {other.animal: other.weight for other in cases if other.day == one.day}
        planted = np.array([of_day.get(int(animal), 0.0) for animal in one.eligible])
        values = np.vstack((one.moved, planted))  # (Q + 1, N)
        if taken is None:
            free = np.ones(len(one.eligible), bool)
            reference = values.mean(axis=1, keepdims=True)
        else:
            others = (~taken[:, one.eligible]).astype(float)  # (1 + B, N)
            free = others[0] > 0
            reference = values @ others.T / others.sum(axis=1)
        away = values[:, np.searchsorted(one.eligible, receivers[:, place])] - reference
        total += one.weight * away[:-1]  # 0 where it is not known
        shift += one.weight * one.known[:, None] * away[-1]
        weight += one.weight**2 * one.known
        compared = one.moved[:, free]
        squares[0] += ((compared - compared.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        squares[1] += (np.count_nonzero(free) - 1) * one.known
    per = np.where(weight > 0, weight, 1)[:, None]
    return total / per, shift / per, squares


def pooled_spread(squares: Floats, leads: int) -> Floats:
    """Standard deviation of each quantity over days of cases and leads, (F,), of squares and their freedom, (2, Q)."""
    total, freedom = squares.reshape(2, -1, leads).sum(axis=2)
    pooled: Floats = np.sqrt(total / np.maximum(freedom, 1))
    return pooled


def invert(effects: Floats, shift: Floats, level: float) -> tuple[Floats, Floats]:
    """Ends of the effects that the test does not reject when they are subtracted from the cases, (Q,) twice.

    Subtracting d leaves effect - d * shift in each deal. A deal is as extreme as the observed one for all d between two
    bounds that have the estimate between them: so many have to be as extreme, and the ends are order statistics.
    """
    observed, mine = effects[:, :1], shift[:, :1]
    less, more = mine - shift, mine + shift
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(less < 1e-12, np.copysign(np.inf, observed - effects), (observed - effects) / less)
        other = np.where(more < 1e-12, np.copysign(np.inf, observed + effects), (observed + effects) / more)
    scale = np.abs(effects).max(axis=1, keepdims=True)
    same = (np.abs(less) < 1e-12) & (np.abs(observed - effects) <= 1e-9 * scale)
    mirrored = (np.abs(more) < 1e-12) & (np.abs(observed + effects) <= 1e-9 * scale)
    always = same | mirrored | (less < -1e-12) | (more < -1e-12)  # the last two: shows more of it than the cases do
    low = np.where(always, -np.inf, np.minimum(one, other))
    high = np.where(always, np.inf, np.maximum(one, other))
    rank = int(np.floor(level * effects.shape[1] + 1e-9))  # so many may be as extreme, and the effect is rejected
    return np.sort(low, axis=1)[:, rank], -np.sort(-high, axis=1)[:, rank]


def log_arrangements(cases: Sequence[Case], kind: Kind) -> Floats:
    """Logarithm of the number of ways in which the outcomes of each test can be dealt, at least, (Q,)."""
    groups: dict[bytes, list[Case]] = {}
    for one in cases:
        groups.setdefault(one.eligible.tobytes(), []).append(one)
    ways = np.zeros(len(cases[0].known))
    for members in groups.values():
        dealt = np.array([one.known for one in members]).sum(axis=0)
        animals = len(members[0].eligible)
        ways += gammaln(animals + 1) - gammaln(animals - dealt + 1)
        if kind != "growth":  # whose values differ
            ways -= gammaln(dealt + 1)
    return ways
