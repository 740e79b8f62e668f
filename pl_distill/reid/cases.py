"""Which outcomes a record can say something about, and who could have had each of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pl_distill.reid.daily import BASELINE_DAYS, DailyTable, own_change
from pl_distill.reid.outcomes import Kind, Outcome

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
MIN_CONTROLS = 3


@dataclass(frozen=True)
class Case:
    """An outcome that can be tested; Q tests are quantities by leads.

    Args:
        animal: Its place in the herd.
        day: Place of its day.
        weight: 1; of growth the gain in standard deviations.
        known: (Q,) tests in which it takes part.
        eligible: (N,) places, rising, of all who could have had it on that day, the animal among them: the same is
            known of them. Of growth those with a value.
        moved: (Q, N) how far these had moved from their own past; 0 where it is not known.
    """

    animal: int
    day: int
    weight: float
    known: Flags
    eligible: Indices
    moved: Floats


@dataclass(frozen=True)
class ChosenCases:
    """Outcomes that can be tested, in the order of their days, and of how many animals none can be."""

    cases: list[Case]
    without_past: int
    without_others: int

    @property
    def animals(self) -> int:
        """How many are compared: the cases, and who could have been one."""
        return len(np.unique(np.concatenate([one.eligible for one in self.cases]))) if self.cases else 0


def choose_cases(table: DailyTable, outcomes: Sequence[Outcome], kind: Kind, leads: Indices) -> ChosenCases:
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
            # Of growth, who has a value is compared with the others that have one: who was never weighed gained what
            # nobody knows, and may be of another age.
            others = np.count_nonzero(same & owners) - 1 if kind == "growth" else np.count_nonzero(same & ~owners)
            if same[place[name]] and others >= MIN_CONTROLS:
                found.append((one, moved, same))
                break
        else:
            without_past += not has_past
            without_others += has_past
    tested = np.zeros(len(table.animals), bool)
    while True:
        tested[:] = False
        tested[[place[one.animal] for one, _, _ in found]] = True
        if kind != "growth":
            break
        # Some of the others cannot be tested themselves: who is left with too few of them goes, too, and so on.
        kept = [case for case in found if np.count_nonzero(case[2] & tested) - 1 >= MIN_CONTROLS]
        if len(kept) == len(found):
            break
        without_others += len(found) - len(kept)
        found = kept
    # Who had the outcome at a time that cannot be tested is neither a case nor an animal without it.
    comparable = tested if kind == "growth" else tested | ~owners
    values = np.array([one.value for one, _, _ in found])
    cases = []
    for one, moved, same in found:
        weight = 1.0 if kind != "growth" else float((one.value - values.mean()) / max(values.std(), 1e-12))
        eligible = np.flatnonzero(same & comparable)
        known = np.isfinite(moved[:, place[one.animal]])
        inside = np.where(known[:, None], moved[:, eligible], 0)
        cases.append(Case(place[one.animal], table.day_index(one.day), weight, known, eligible, inside))
    return ChosenCases(sorted(cases, key=lambda one: one.day), without_past, without_others)


def _before(change: Floats, day: int, leads: Indices) -> Floats:
    """Change of every animal at each lead before a day, (Q, A)."""
    quantities, herd, span = change.shape
    at = day - leads
    inside = (at >= 0) & (at < span)
    moved = np.full((quantities, len(leads), herd), np.nan)
    moved[:, inside] = change[:, :, at[inside]].transpose(0, 2, 1)
    return moved.reshape(-1, herd)
