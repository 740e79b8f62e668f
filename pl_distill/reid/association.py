"""Does the record show an outcome, and how many days before? Permutations over animals, never over days or frames.

For each quantity and lead of L days, the effect is how far the animals with the outcome had moved from their own past,
L days before it was found, against the rest of the herd on the same day. Under the null hypothesis the outcomes could
have happened to any animals: they are dealt out anew among the animals, dates and values unchanged. All quantities and
leads are corrected together by the largest standardised effect (max-T; Westfall and Young 1993), which keeps the chance
of any false finding at the level, whatever their correlation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import comb, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from pl_distill.errors import ConfigError
from pl_distill.reid.daily import DailyTable, own_change
from pl_distill.reid.outcomes import Kind, Outcome

Floats = NDArray[np.float64]
MIN_CASES = 3
MIN_CONTROLS = 3
MIN_VALUES = 6  # of growth, which has no controls
_ARRANGEMENTS_PER_LEVEL = 5  # so that the smallest possible p-value is a fifth of the level


@dataclass(frozen=True)
class Finding:
    """One quantity at one lead.

    Args:
        quantity: Name of the daily quantity.
        lead_days: How many days before the outcome.
        effect: Mean difference, in standard deviations between animals; of growth the weighted one.
        low: Lower end of the 95 % interval, by inverting the permutation test.
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
        animals: In the record.
        cases: Animals with the outcome; only the first of each counts.
        left_out: Outcomes that were not their animal's first.
        level: Of significance.
        detectable: Smallest effect that one test finds with a power of 80 %, in standard deviations; None of growth,
            which does not compare two groups.
        findings: All quantities and leads.
    """

    kind: Kind
    animals: int
    cases: int
    left_out: int
    level: float
    detectable: float | None
    findings: list[Finding]

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
        outcomes: What happened; only those of `kind` count, and of each animal the first.
        kind: Of outcome. Of growth, value less the mean value weighs; of the others each animal with one counts once.
        leads: Days before the outcome.
        permutations: How often outcomes are dealt out anew.
        level: Of significance.
        seed: Of the permutations.

    Raises:
        ConfigError: Too few animals or outcomes for any answer; says how many it takes.
    """
    first = _first_of_each(outcomes, kind)
    mine = [one for one in outcomes if one.kind == kind]
    _check_numbers(len(table.animals), len(first), kind, level)
    change = own_change(table.values)  # (F, A, T)
    column = {name: index for index, name in enumerate(table.animals)}
    animals = np.array([column[one.animal] for one in first])
    days = np.array([table.day_index(one.day) for one in first])
    weights = np.ones(len(first))
    if kind == "growth":
        values = np.array([one.value for one in first])
        weights = (values - values.mean()) / max(float(values.std()), 1e-12)
    rng = np.random.default_rng(seed)
    deals = np.stack(
        [np.arange(len(table.animals))] + [rng.permutation(len(table.animals)) for _ in range(permutations)]
    )
    effects, cases = _effects(change, animals, days, weights, np.array(leads), deals)  # (F * L, 1 + B), (F * L,)
    observed, dealt = effects[:, 0], effects
    centre = np.nanmean(dealt, axis=1)
    spread = np.nanstd(dealt, axis=1)
    usable = (spread > 0) & np.isfinite(observed) & (cases >= (MIN_VALUES if kind == "growth" else MIN_CASES))
    if not usable.any():
        found = f"has {cases.max(initial=0)} outcomes whose animal has a past in the record to compare with"
        expected = f"{MIN_CASES} or more, of growth {MIN_VALUES}"
        raise ConfigError(f"kind '{kind}'", found, expected, "Watch longer before the first outcome.")
    standardised = np.abs(dealt - centre[:, None]) / np.where(usable, spread, np.nan)[:, None]
    standardised = np.where(np.isfinite(standardised), standardised, 0.0)
    largest = standardised.max(axis=0)
    mine_p = (standardised >= standardised[:, :1] - 1e-12).mean(axis=1)
    corrected = (largest[None] >= standardised[:, :1] - 1e-12).mean(axis=1)
    half = np.nanquantile(np.abs(dealt - centre[:, None]), 1 - level, axis=1)
    findings = [
        Finding(
            name, int(lead), float(observed[row]), float(observed[row] - half[row]), float(observed[row] + half[row]),
            float(mine_p[row]), float(corrected[row]), int(cases[row]),
        )
        for row, (name, lead) in enumerate((name, lead) for name in table.names for lead in leads)
        if usable[row]
    ]  # fmt: skip
    controls = len(table.animals) - len(first)
    detectable = None if kind == "growth" else detectable_effect(len(first), controls, level)
    return Association(kind, len(table.animals), len(first), len(mine) - len(first), level, detectable, findings)


def detectable_effect(cases: int, controls: int, level: float = 0.05, power: float = 0.8) -> float:
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


def _first_of_each(outcomes: Sequence[Outcome], kind: Kind) -> list[Outcome]:
    first: dict[str, Outcome] = {}
    for one in sorted((one for one in outcomes if one.kind == kind), key=lambda one: one.day):
        first.setdefault(one.animal, one)
    return list(first.values())


def _check_numbers(animals: int, cases: int, kind: Kind, level: float) -> None:
    if kind == "growth":
        enough, needed = cases >= MIN_VALUES, f"{MIN_VALUES} animals with a value"
    else:
        fewest = animals_needed(max(cases, MIN_CASES), level)
        enough = cases >= MIN_CASES and animals >= fewest
        needed = f"{MIN_CASES} animals with it or more, among {fewest} or more in all"
    if not enough:
        one_sd = next(n for n in range(2, 10_000) if detectable_effect(n, n, level) <= 1)
        raise ConfigError(
            f"kind '{kind}'", f"has {cases} animals with an outcome among {animals}", needed,
            f"Watch more: an effect of one standard deviation takes {one_sd} animals with it and {one_sd} without.",
        )  # fmt: skip


def _effects(
    change: Floats, animals: NDArray[np.int64], days: NDArray[np.int64], weights: Floats, leads: NDArray[np.int64],
    deals: NDArray[np.int64],
) -> tuple[Floats, NDArray[np.int64]]:  # fmt: skip
    """Weighted means over the outcomes for every deal, (F * L, 1 + B), and how many outcomes each observed one has."""
    quantities, herd, span = change.shape
    tests = quantities * len(leads)
    total, weight = np.zeros((tests, len(deals))), np.zeros((tests, len(deals)))
    cases = np.zeros(tests, np.int64)
    for animal, day, share in zip(animals, days, weights, strict=True):
        at = day - leads
        inside = (at >= 0) & (at < span)
        moved = np.full((quantities, len(leads), herd), np.nan)
        moved[:, inside] = change[:, :, at[inside]].transpose(0, 2, 1)
        flat = moved.reshape(tests, herd)
        known = np.isfinite(flat)
        receivers = deals[:, animal]  # (1 + B,)
        total += share * np.where(known, flat, 0)[:, receivers]
        weight += abs(share) * known[:, receivers]
        cases += known[:, animal]
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.nan), cases
