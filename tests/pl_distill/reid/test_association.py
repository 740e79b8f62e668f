from datetime import date, timedelta

import numpy as np
import pytest

from pl_distill.errors import ConfigError
from pl_distill.evaluation.simulated_record import FIRST_DAY, draw_outcomes, simulate_hours
from pl_distill.reid.association import animals_needed, associate, detectable_effect
from pl_distill.reid.daily import DailyTable, daily_table
from pl_distill.reid.outcomes import Outcome

HOURS = (6, 14)


def lame(outcomes, days_before):
    return {int(one.animal[-4:]) - 1: (one.day - FIRST_DAY).days - days_before for one in outcomes}


def test_a_planted_lameness_is_found_where_it_is_and_before_it_is_diagnosed():
    outcomes = draw_outcomes(30, 100, 8, seed=1)
    hours = simulate_hours(30, 100, 1, HOURS, lame_from=lame(outcomes, 6), walks=0.5)
    found = associate(daily_table(hours), outcomes, "lameness", permutations=299)
    assert {one.quantity for one in found.significant} == {"distance_m", "walk_percent"}
    assert all(one.effect < 0 and one.high < 0 for one in found.significant)
    lead = found.shown_before("distance_m")
    assert lead is not None
    assert 1 <= lead <= 6


def false_findings(simulations, animals=24, days=70, cases=6):
    hits = tests = single = 0
    for seed in range(simulations):
        table = daily_table(simulate_hours(animals, days, seed, HOURS[:1]))
        outcomes = draw_outcomes(animals, days, cases, seed)
        found = associate(table, outcomes, "lameness", range(0, 15, 7), permutations=199, seed=seed)
        hits += bool(found.significant)
        single += sum(one.p_value <= 0.05 for one in found.findings)
        tests += len(found.findings)
    return hits / simulations, single / tests


def test_nothing_is_found_where_nothing_was_planted():
    any_false, single = false_findings(60)
    assert any_false <= 0.15  # 0.05 and three standard errors
    assert 0.02 <= single <= 0.08


@pytest.mark.slow
def test_false_positive_rate_over_a_thousand_null_records_is_at_most_7_percent():
    any_false, single = false_findings(1000)
    assert any_false <= 0.07
    assert single <= 0.07


def table_of(values):
    animals = tuple(f"animal-{number + 1:04d}" for number in range(values.shape[1]))
    return DailyTable(
        animals, tuple(FIRST_DAY + timedelta(days=day) for day in range(values.shape[2])), ("way",), values
    )


def test_growth_weighs_by_its_value():
    rng = np.random.default_rng(3)
    gains = rng.normal(size=20)
    values = rng.normal(size=(1, 20, 60)) * 0.3
    values[0, :, 45:] += gains[:, None]
    day = FIRST_DAY + timedelta(days=55)
    outcomes = [Outcome(f"animal-{number + 1:04d}", day, "growth", float(gain)) for number, gain in enumerate(gains)]
    found = associate(table_of(values), outcomes, "growth", (0, 3), permutations=199)
    assert found.significant[0].effect > 0.5
    assert found.detectable is None  # every animal has a value: there are no two groups


def test_of_each_animal_the_first_outcome_counts_and_the_others_are_told():
    outcomes = draw_outcomes(20, 60, 5, seed=0)
    again = [Outcome(one.animal, date(2026, 3, 1), "lameness", 1.0) for one in outcomes[:2]]
    found = associate(daily_table(simulate_hours(20, 60, 0, HOURS)), outcomes + again, "lameness", (0,), 99)
    assert (found.cases, found.left_out) == (5, 2)


def test_too_few_animals_are_refused_with_how_many_it_takes():
    table = daily_table(simulate_hours(8, 60, 0, HOURS[:1]))
    with pytest.raises(
        ConfigError, match=r"has 2 animals with an outcome among 8, expected 3 .* among 10 or more"
    ) as told:
        associate(table, draw_outcomes(8, 60, 2, 0), "lameness")
    assert "one standard deviation takes 16" in str(told.value)
    with pytest.raises(ConfigError, match="has 7 animals"):
        associate(table, draw_outcomes(8, 60, 7, 0), "lameness")
    with pytest.raises(ConfigError, match="6 animals with a value"):
        associate(table, draw_outcomes(8, 60, 5, 0, "growth"), "growth")


def test_numbers_needed_by_hand():
    assert animals_needed(3) == 10  # C(9, 3) = 84 < 100 <= C(10, 3) = 120
    assert detectable_effect(16, 16) == pytest.approx(0.99, abs=0.01)  # 2.80 * sqrt(2 / 16)
