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
from math import ceil, comb, sqrt

import numpy as np
from scipy.stats import norm

from pl_distill.errors import ConfigError
from pl_distill.reid.cases import MIN_CONTROLS, ChosenCases, choose_cases
from pl_distill.reid.daily import DailyTable
from pl_distill.reid.outcomes import Kind, Outcome
from pl_distill.reid.permutation import deal, effects_of, invert, log_arrangements, pooled_spread

MIN_CASES = 3
MIN_VALUES = 6  # of growth, which has no controls
_ALIKE = 1e-3  # weights are gains in their own standard deviation: what differs at all is further apart
_POWER = 0.8
_ARRANGEMENTS_PER_LEVEL = 5  # so that the smallest possible p-value is a fifth of the level


@dataclass(frozen=True)
class Finding:
    """One quantity at one lead.

    Args:
        quantity: Name of the daily quantity.
        lead_days: How many days before the outcome.
        effect: Mean difference of the cases to the animals without the outcome on the same day, in standard deviations
            between the latter; of growth that of a standard deviation of gain, between all that were weighed.
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
        """Give the days before the outcome from which on a quantity shows it at every lead, in one direction.

        None if never.
        """
        tested = sorted((one for one in self.findings if one.quantity == quantity), key=lambda one: one.lead_days)
        shown = list(takewhile(lambda one: one.p_corrected <= self.level and one.effect * tested[0].effect > 0, tested))
        return shown[-1].lead_days if shown else None

    @property
    def significant(self) -> list[Finding]:
        """Findings below the level after correction, the strongest of each quantity, the strongest first."""
        best: dict[str, Finding] = {}
        for one in self.findings:
            if one.p_corrected <= self.level and abs(one.effect) > abs(best.get(one.quantity, _NOTHING).effect):
                best[one.quantity] = one
        return sorted(best.values(), key=lambda one: -abs(one.effect))


_NOTHING = Finding("", 0, 0.0, 0.0, 0.0, 1.0, 1.0, 0)


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
        ConfigError: Too few animals or outcomes for any answer; says how many it takes. Or all have gained the same.
    """
    listed = [one for one in outcomes if one.kind == kind]
    mine = sorted((one for one in listed if one.is_case), key=lambda one: one.day, reverse=kind == "growth")
    sound = len(listed) - len(mine)
    chosen = choose_cases(table, mine, kind, np.array(leads))
    cases = chosen.cases
    if kind == "growth" and len(cases) >= MIN_VALUES and np.ptp([one.weight for one in cases]) < _ALIKE:
        found = f"has the same value or nearly so for all {len(cases)} animals that can be tested"
        raise ConfigError("kind 'growth'", found, "values that differ", "Correct the column value: the gain of each.")
    if len(cases) < (MIN_VALUES if kind == "growth" else MIN_CASES):
        raise _too_few(chosen, kind, level, sound)
    herd = len(table.animals)
    receivers, taken = deal(cases, herd, permutations, kind, np.random.default_rng(seed))
    raw, shift, unit = effects_of(cases, receivers, None if kind == "growth" else taken)  # (Q, 1 + B) twice, (Q,)
    unit = np.repeat(pooled_spread(unit, len(leads)), len(leads))
    spread = np.sqrt((raw**2).mean(axis=1))  # around 0, the effect of nothing
    low, high = invert(raw, shift, level)
    number = np.array([one.known for one in cases]).sum(axis=0)
    usable = (
        (unit > 0) & (spread > 0) & (shift[:, 0] > _ALIKE) & np.isfinite(low) & np.isfinite(high)
        & (number >= (MIN_VALUES if kind == "growth" else MIN_CASES))
        & (log_arrangements(cases, kind) >= np.log(_ARRANGEMENTS_PER_LEVEL / level) - 1e-9)
    )  # fmt: skip
    if not usable.any():
        raise _too_few(chosen, kind, level, sound)
    # Gains are centred over all animals, and each is compared with those of its own day, who may have gained more than
    # others: of an effect of 1 the observed deal shows `shift`. It is 1 where cases are compared with animals without.
    effect = raw[:, 0] / np.where(usable, shift[:, 0] * unit, np.inf)
    standardised = np.abs(raw) / np.where(usable, spread, np.inf)[:, None]  # 0 of tests that are not made
    largest = standardised.max(axis=0)
    mine_p = (standardised >= standardised[:, :1] - 1e-9).mean(axis=1)
    corrected = (largest[None] >= standardised[:, :1] - 1e-9).mean(axis=1)
    findings = [
        Finding(
            name, int(lead), float(effect[row]), float(low[row] / unit[row]), float(high[row] / unit[row]),
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


def detectable_effect(cases: int, controls: float, level: float = 0.05) -> float:
    """Give the smallest difference, in standard deviations, that one test of two groups finds with a power of 0.8."""
    if cases < 1 or controls < 1:
        return float("inf")
    return float(norm.ppf(1 - level / 2) + norm.ppf(_POWER)) * sqrt(1 / cases + 1 / controls)


def animals_needed(cases: int, level: float = 0.05) -> int:
    """Give the fewest animals with which so many cases can give a p-value well below the level."""
    animals = cases + MIN_CONTROLS
    while comb(animals, cases) < _ARRANGEMENTS_PER_LEVEL / level:
        animals += 1
    return animals


def permutations_needed(level: float) -> int:
    """Give the fewest permutations with which a p-value can be at the level; the observed deal counts, too."""
    return ceil(1 / level - 1e-9) - 1


def _too_few(chosen: ChosenCases, kind: Kind, level: float, sound: int) -> ConfigError:
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
