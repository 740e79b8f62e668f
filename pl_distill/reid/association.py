"""Does the record show an outcome, and how many days before? Permutations over animals, never over days or frames.

For each quantity and lead of L days, the effect is how much further the animals with the outcome had moved from their
own past, L days before it was found, than the animals without it had on the same day. Under the null hypothesis an
outcome could have happened to any animal that was there: each is dealt out anew among the animals of which as much is
known on its day, dates and values unchanged, one after the other as they happened, to nobody twice. All quantities and
leads are corrected together by the largest standardised effect (max-T; Westfall and Young 1993), which keeps the chance
of any false finding at the level, whatever their correlation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import comb, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import norm

from pl_distill.errors import ConfigError
from pl_distill.reid.daily import BASELINE_DAYS, DailyTable, own_change
from pl_distill.reid.outcomes import Kind, Outcome

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
MIN_CASES = 3
MIN_CONTROLS = 3
MIN_VALUES = 6  # of growth, which has no controls
_ARRANGEMENTS_PER_LEVEL = 5  # so that the smallest possible p-value is a fifth of the level
_MOST_ROUNDS = 200  # of dealing, where deals have to be thrown away because nobody was left for an outcome


@dataclass(frozen=True)
class Finding:
    """One quantity at one lead.

    Args:
        quantity: Name of the daily quantity.
        lead_days: How many days before the outcome.
        effect: Mean difference of the cases to the animals without the outcome on the same day, in standard deviations
            between the latter; of growth that of a standard deviation of gain, between all animals.
        low: Lower end of the interval of this test alone: every effect that the permutation test does not reject at the
            level once it is subtracted from the cases.
        high: Upper end.
        p_value: Of this test alone.
        p_corrected: Over all quantities and leads.
        cases: Outcomes that it rests on.
    """

    quantity: str
    lead_days: int
    effect: float
    low: float
    high: float
    p_value: float
    p_corrected: float
    cases: int


@dataclass(frozen=True)
class Association:
    """What was found about one kind of outcome.

    Args:
        kind: Of the outcomes.
        animals: That were compared: the cases, and who could have been one on the day of one.
        cases: Animals with an outcome that can be tested; one of each counts.
        left_out: Outcomes beside the one that counts of their animal.
        level: Of significance.
        detectable: Smallest effect that one test finds with a power of 80 %, in standard deviations; None of growth,
            which does not compare two groups.
        findings: All quantities and leads.
        controls: Animals without the outcome that a case is compared with, on average; None of growth.
        without_past: Animals none of whose outcomes has a past in the record.
        without_others: Animals none of whose outcomes has enough others to compare with on the same day.
        sound: Lines that say of a day that there was nothing.
    """

    kind: Kind
    animals: int
    cases: int
    left_out: int
    level: float
    detectable: float | None
    findings: list[Finding]
    controls: float | None = None
    without_past: int = 0
    without_others: int = 0
    sound: int = 0

    def shown_before(self, quantity: str) -> int | None:
        """Give the days before the outcome from which on a quantity shows it at every lead; None if never."""
        tested = sorted((one.lead_days, one.p_corrected) for one in self.findings if one.quantity == quantity)
        shown = list(takewhile(lambda one: one[1] <= self.level, tested))
        return shown[-1][0] if shown else None

    @property
    def significant(self) -> list[Finding]:
        """Findings below the level after correction, the strongest of each quantity, the strongest first."""
        best: dict[str, Finding] = {}
        for one in self.findings:
            if one.p_corrected <= self.level and abs(one.effect) > abs(best.get(one.quantity, _NOTHING).effect):
                best[one.quantity] = one
        return sorted(best.values(), key=lambda one: -abs(one.effect))


_NOTHING = Finding("", 0, 0.0, 0.0, 0.0, 1.0, 1.0, 0)


@dataclass(frozen=True)
class _Case:
    """An outcome that can be tested; Q tests are quantities by leads.

    Args:
        animal: Its place in the herd.
        day: Place of its day.
        weight: 1; of growth the gain in standard deviations.
        known: (Q,) tests in which it takes part.
        eligible: (N,) places, rising, of all who could have had it on that day, the animal among them: the same is
            known of them.
        moved: (Q, N) how far these had moved from their own past; 0 where it is not known.
    """

    animal: int
    day: int
    weight: float
    known: Flags
    eligible: Indices
    moved: Floats


@dataclass(frozen=True)
class _Chosen:
    """Outcomes that can be tested, in the order of their days, and of how many animals none can be."""

    cases: list[_Case]
    without_past: int
    without_others: int

    @property
    def animals(self) -> int:
        return len(np.unique(np.concatenate([one.eligible for one in self.cases]))) if self.cases else 0


def associate(
    table: DailyTable,
    outcomes: Sequence[Outcome],
    kind: Kind,
    leads: Sequence[int] = tuple(range(15)),
    permutations: int = 999,
    level: float = 0.05,
    seed: int = 0,
) -> Association:
    """Test every quantity at every lead.

    Args:
        table: The record by days.
        outcomes: What happened; only those of `kind` count, and of each animal the first that has a past in the record
            to compare with, of growth the last. A value of 0 is no outcome, but of growth.
        kind: Of outcome. Of growth, value less the mean value weighs; of the others each animal with one counts once.
        leads: Days before the outcome.
        permutations: How often outcomes are dealt out anew.
        level: Of significance.
        seed: Of the permutations.

    Raises:
        ConfigError: Too few animals or outcomes for any answer; says how many it takes.
    """
    listed = [one for one in outcomes if one.kind == kind]
    mine = sorted((one for one in listed if one.is_case), key=lambda one: one.day, reverse=kind == "growth")
    sound = len(listed) - len(mine)
    chosen = _choose(table, mine, kind, np.array(leads))
    cases = chosen.cases
    if len(cases) < (MIN_VALUES if kind == "growth" else MIN_CASES):
        raise _too_few(chosen, kind, level, sound)
    herd = len(table.animals)
    receivers, taken = _deal(cases, herd, permutations, kind, np.random.default_rng(seed))
    raw, shift, unit = _effects(cases, receivers, None if kind == "growth" else taken)  # (Q, 1 + B) twice, (Q,)
    unit = np.repeat(_pooled(unit, len(leads)), len(leads))
    spread = np.sqrt((raw**2).mean(axis=1))  # around 0, the effect of nothing
    low, high = _invert(raw, shift, level)
    number = np.array([one.known for one in cases]).sum(axis=0)
    usable = (
        (unit > 0) & (spread > 0) & np.isfinite(low) & np.isfinite(high)
        & (number >= (MIN_VALUES if kind == "growth" else MIN_CASES))
        & (_log_arrangements(cases, kind) >= np.log(_ARRANGEMENTS_PER_LEVEL / level) - 1e-9)
    )  # fmt: skip
    if not usable.any():
        raise _too_few(chosen, kind, level, sound)
    standardised = np.abs(raw) / np.where(usable, spread, np.inf)[:, None]  # 0 of tests that are not made
    largest = standardised.max(axis=0)
    mine_p = (standardised >= standardised[:, :1] - 1e-9).mean(axis=1)
    corrected = (largest[None] >= standardised[:, :1] - 1e-9).mean(axis=1)
    findings = [
        Finding(
            name, int(lead), float(raw[row, 0] / unit[row]), float(low[row] / unit[row]), float(high[row] / unit[row]),
            float(mine_p[row]), float(corrected[row]), int(number[row]),
        )
        for row, (name, lead) in enumerate((name, lead) for name in table.names for lead in leads)
        if usable[row]
    ]  # fmt: skip
    controls = detectable = None
    if kind != "growth":
        free = np.array([np.count_nonzero(~taken[0, one.eligible]) for one in cases])
        controls = float(free.mean())
        detectable = detectable_effect(len(cases), len(cases) / float((1 / free).sum()), level)
    return Association(
        kind, chosen.animals, len(cases), len(mine) - len({one.animal for one in mine}), level, detectable, findings,
        controls, chosen.without_past, chosen.without_others, sound,
    )  # fmt: skip


def detectable_effect(cases: int, controls: float, level: float = 0.05, power: float = 0.8) -> float:
    """Give the smallest difference, in standard deviations, that one test of two groups finds with this power."""
    if cases < 1 or controls < 1:
        return float("inf")
    return float(norm.ppf(1 - level / 2) + norm.ppf(power)) * sqrt(1 / cases + 1 / controls)


def animals_needed(cases: int, level: float = 0.05) -> int:
    """Give the fewest animals with which so many cases can give a p-value well below the level."""
    animals = cases + MIN_CONTROLS
    while comb(animals, cases) < _ARRANGEMENTS_PER_LEVEL / level:
        animals += 1
    return animals


def _too_few(chosen: _Chosen, kind: Kind, level: float, sound: int) -> ConfigError:
    found = f"has {len(chosen.cases)} outcomes that can be tested, among {chosen.animals} animals"
    advice = []
    if chosen.without_past:
        found += f"; {chosen.without_past} animals with one have no past before it"
        advice.append("Watch longer before an outcome: it takes two weeks.")
    if chosen.without_others:
        found += f"; {chosen.without_others} have fewer than {MIN_CONTROLS} others to compare with on that day"
    if sound:
        found += f"; {sound} lines have the value 0, which says that there was nothing"
    if kind == "growth":
        needed = f"{MIN_VALUES} animals with a value or more"
    else:
        fewest = animals_needed(max(len(chosen.cases), MIN_CASES), level)
        needed = f"{MIN_CASES} animals with one at least, among {fewest} or more that were there on the same days"
        one_sd = next(n for n in range(2, 10_000) if detectable_effect(n, n, level) <= 1)
        advice.append(f"An effect of one standard deviation takes {one_sd} animals with it and {one_sd} without.")
    return ConfigError(f"kind '{kind}'", found, needed, " ".join(advice) or "Watch more animals.")


def _choose(table: DailyTable, outcomes: Sequence[Outcome], kind: Kind, leads: Indices) -> _Chosen:
    """Take of each animal the first of these outcomes that can be tested."""
    stayed = np.flatnonzero(np.isfinite(table.values).any(axis=0).sum(axis=1) > BASELINE_DAYS)  # many names live a day
    change = np.full(table.values.shape, np.nan)
    change[:, stayed] = own_change(table.values[:, stayed])
    place = {name: index for index, name in enumerate(table.animals)}
    owners = np.zeros(len(table.animals), bool)
    owners[[place[one.animal] for one in outcomes]] = True
    by_animal: dict[str, list[Outcome]] = {}
    for one in outcomes:
        by_animal.setdefault(one.animal, []).append(one)
    found: list[tuple[Outcome, Floats, Flags]] = []
    without_past = without_others = 0
    for name, mine in by_animal.items():
        has_past = False
        for one in mine:
            moved = _before(change, table.day_index(one.day), leads)
            known = np.isfinite(moved)
            has_past |= bool(known[:, place[name]].any())
            same = (known == known[:, [place[name]]]).all(axis=0) & known.any(axis=0)
            # Of growth all have a value, and are compared with each other.
            others = np.count_nonzero(same) - 1 if kind == "growth" else np.count_nonzero(same & ~owners)
            if same[place[name]] and others >= MIN_CONTROLS:
                found.append((one, moved, same))
                break
        else:
            without_past += not has_past
            without_others += has_past
    # Who had the outcome at a time that cannot be tested is neither a case nor an animal without it.
    for one, _, _ in found:
        owners[place[one.animal]] = False
    values = np.array([one.value for one, _, _ in found])
    cases = []
    for one, moved, same in found:
        weight = 1.0 if kind != "growth" else float((one.value - values.mean()) / max(values.std(), 1e-12))
        eligible = np.flatnonzero(same & ~owners)
        known = np.isfinite(moved[:, place[one.animal]])
        inside = np.where(known[:, None], moved[:, eligible], 0)
        cases.append(_Case(place[one.animal], table.day_index(one.day), weight, known, eligible, inside))
    return _Chosen(sorted(cases, key=lambda one: one.day), without_past, without_others)


def _before(change: Floats, day: int, leads: Indices) -> Floats:
    """Change of every animal at each lead before a day, (Q, A)."""
    quantities, herd, span = change.shape
    at = day - leads
    inside = (at >= 0) & (at < span)
    moved = np.full((quantities, len(leads), herd), np.nan)
    moved[:, inside] = change[:, :, at[inside]].transpose(0, 2, 1)
    return moved.reshape(-1, herd)


def _deal(
    cases: Sequence[_Case], herd: int, number: int, kind: Kind, rng: np.random.Generator
) -> tuple[Indices, Flags]:
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


def _effects(
    cases: Sequence[_Case], receivers: Indices, taken: Flags | None
) -> tuple[Floats, Floats, NDArray[np.float64]]:
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


def _pooled(squares: Floats, leads: int) -> Floats:
    """Standard deviation of each quantity over days of cases and leads, (F,), of squares and their freedom, (2, Q)."""
    total, freedom = squares.reshape(2, -1, leads).sum(axis=2)
    pooled: Floats = np.sqrt(total / np.maximum(freedom, 1))
    return pooled


def _invert(effects: Floats, shift: Floats, level: float) -> tuple[Floats, Floats]:
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


def _log_arrangements(cases: Sequence[_Case], kind: Kind) -> Floats:
    """Logarithm of the number of ways in which the outcomes of each test can be dealt, at least, (Q,)."""
    groups: dict[bytes, list[_Case]] = {}
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
