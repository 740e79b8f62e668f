from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from pl_distill.errors import ConfigError
from pl_distill.evaluation.simulated_record import FIRST_DAY, draw_outcomes, number_of, simulate_hours
from pl_distill.reid.association import (
    Association,
    Finding,
    animals_needed,
    associate,
    detectable_effect,
    permutations_needed,
)
from pl_distill.reid.daily import DailyTable, daily_table
from pl_distill.reid.outcomes import Outcome

HOURS = (6, 14)


def lame(outcomes, days_before):
    return {number_of(one.animal): (one.day - FIRST_DAY).days - days_before for one in outcomes}


def test_a_planted_lameness_is_found_where_it_is_and_before_it_is_diagnosed():
    outcomes = draw_outcomes(30, 100, 8, seed=1)
    hours = simulate_hours(30, 100, 1, HOURS, lame_from=lame(outcomes, 6), walks=0.5)
    found = associate(daily_table(hours), outcomes, "lameness", permutations=299)
    assert {one.quantity for one in found.significant} == {"distance_m", "walk_percent"}
    assert all(one.effect < 0 and one.high < 0 for one in found.significant)
    lead = found.shown_before("distance_m")
    assert lead is not None
    assert 1 <= lead <= 6


def test_the_number_of_a_drawn_animal_is_known_by_its_name_also_of_ten_thousand():
    assert sorted(number_of(one.animal) for one in draw_outcomes(10_001, 2, 10_001, 0)) == list(range(10_001))


def in_batches(table, size, stay, every):
    """The same days, of animals that come in batches and stay for so many of them."""
    values = np.full(table.values.shape, np.nan)
    for animal in range(len(table.animals)):
        there = slice(begin := animal // size * every, begin + stay)
        values[:, animal, there] = table.values[:, animal, there]
    return replace(table, values=values)


def with_fragments(table, number, seed):
    """The same with names that lived two days: those of tracks that nobody recognised."""
    rng = np.random.default_rng((seed, 2))
    quantities, animals, days = table.values.shape
    values = np.full((quantities, number, days), np.nan)
    for fragment in range(number):
        day = rng.integers(days - 1)
        values[:, fragment, day : day + 2] = table.values[:, rng.integers(animals), day : day + 2]
    names = tuple(f"fragment-{fragment}" for fragment in range(number))
    return replace(table, animals=table.animals + names, values=np.concatenate((table.values, values), axis=1))


def null_record(herd, seed):
    """Days of a herd without any effect, and outcomes of animals that were there."""
    if herd != "batches":
        table = daily_table(simulate_hours(24, 70, seed, HOURS[:1]))
        return with_fragments(table, 1500, seed) if herd == "fragments" else table, draw_outcomes(24, 70, 6, seed)
    rng = np.random.default_rng((seed, 1))
    table = in_batches(daily_table(simulate_hours(36, 110, seed, HOURS[:1])), size=12, stay=50, every=30)
    outcomes = []
    for animal in rng.choice(36, 6, replace=False):
        day = FIRST_DAY + timedelta(days=int(animal // 12 * 30 + rng.integers(20, 50)))
        outcomes.append(Outcome(f"animal-{animal + 1:04d}", day, "lameness", 1.0))
    return table, outcomes


def false_findings(herd, simulations):
    hits = tests = single = 0
    for seed in range(simulations):
        table, outcomes = null_record(herd, seed)
        found = associate(table, outcomes, "lameness", range(0, 15, 7), permutations=199, seed=seed)
        hits += bool(found.significant)
        single += sum(one.p_value <= 0.05 for one in found.findings)
        tests += len(found.findings)
    return hits / simulations, single / tests


HERDS = ("one herd", "fragments", "batches")


@pytest.mark.parametrize("herd", HERDS)
def test_nothing_is_found_where_nothing_was_planted(herd):
    any_false, single = false_findings(herd, 40)
    assert any_false <= 0.16  # 0.05 and three standard errors
    assert 0.01 <= single <= 0.09


@pytest.mark.slow
@pytest.mark.parametrize("herd", HERDS)
def test_false_positive_rate_over_a_thousand_null_records_is_at_most_7_percent(herd):
    any_false, single = false_findings(herd, 1000)
    print(f"{herd}: {100 * any_false:.1f} % of 1,000 records, {100 * single:.1f} % of single tests")
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


def noise(animals, days, seed=0, quantities=1):
    return np.random.default_rng(seed).normal(size=(quantities, animals, days))


def on(day, *animals, value=1.0, kind="lameness"):
    return [Outcome(f"animal-{one + 1:04d}", FIRST_DAY + timedelta(days=day), kind, value) for one in animals]


def test_who_was_not_there_changes_nothing():
    """Twelve animals of one batch, then the same with a later batch and with names that lived two days."""
    table = table_of(noise(24, 100, quantities=2))
    alone = replace(table, animals=table.animals[:12], values=table.values[:, :12])
    both = in_batches(table, size=12, stay=50, every=50)
    outcomes = [one for animal, day in ((0, 30), (4, 35), (7, 47)) for one in on(day, animal)]
    expected = associate(in_batches(alone, 12, 50, 50), outcomes, "lameness", (0, 3), 99)
    assert (expected.animals, expected.cases, expected.controls) == (12, 3, 9.0)
    for other in (both, with_fragments(both, 300, 0)):
        assert associate(other, outcomes, "lameness", (0, 3), 99) == expected


@pytest.mark.parametrize("herd", ["present", "batches", "fragments"])
def test_a_step_in_twelve_of_120_animals_is_found_however_they_come(herd):
    missed = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        values, outcomes = noise(120, 480 if herd == "batches" else 60, seed), []
        for animal in rng.choice(120, 12, replace=False).tolist():
            day = int(rng.integers(25, 40)) + (40 * (animal // 10) if herd == "batches" else 0)
            values[0, animal, day - 4 : day + 1] -= 1.2
            outcomes += on(day, animal)
        table = table_of(values)
        if herd == "batches":
            table = in_batches(table, size=10, stay=40, every=40)
        if herd == "fragments":
            table = with_fragments(table, 400, seed)
        found = associate(table, outcomes, "lameness", (0, 7), permutations=99)
        assert found.cases == 12
        missed += not found.significant
    assert missed <= 1


def stepped(moves):
    """Days at 0, then three at each animal's own value: exactly so far has it moved from its past."""
    values = np.zeros((1, len(moves), 40))
    values[0, :, 37:] = np.array(moves)[:, None]
    return table_of(values)


def test_the_effect_is_the_difference_to_those_without_it_in_their_standard_deviation():
    found = associate(stepped((4, 5, 6, 5, 5, -1, 0, 1, 0, 0)), on(39, *range(5)), "lameness", (0,), 199)
    (one,) = found.findings
    assert one.effect == pytest.approx(5 / np.sqrt(2 / 4))
    assert found.detectable == pytest.approx(detectable_effect(5, 5))


def test_the_interval_holds_the_effects_that_the_test_does_not_reject_once_they_are_taken_away():
    rng = np.random.default_rng(0)
    moves = rng.normal(size=14) + np.repeat((5.0, 0.0), (4, 10))
    unit = moves[4:].std(ddof=1)
    (found,) = associate(stepped(moves), on(39, *range(4)), "lameness", (0,), 499).findings
    assert found.high - found.low < 4  # with the effect in the deals it would be 7

    def p_without(effect):
        less = stepped(moves - np.repeat((effect * unit, 0), (4, 10)))
        return associate(less, on(39, *range(4)), "lameness", (0,), 499).findings[0].p_value

    assert p_without(found.low - 0.01) <= 0.05 < p_without(found.low + 0.01)
    assert p_without(found.high - 0.01) > 0.05 >= p_without(found.high + 0.01)


def test_the_interval_holds_the_planted_effect_in_95_of_100_records():
    held = 0
    for seed in range(200):
        moves = np.random.default_rng(seed).normal(size=16) + np.repeat((3.0, 0.0), (6, 10))
        (one,) = associate(stepped(moves), on(39, *range(6)), "lameness", (0,), 199, seed=seed).findings
        unit = moves[6:].std(ddof=1)
        held += one.low * unit <= 3 <= one.high * unit
    assert 0.9 <= held / 200 <= 0.99


def test_a_score_of_0_is_no_case():
    values = noise(20, 70)
    values[0, :4, 45:] -= 3
    found_lame = [one for day in (49, 56) for one in on(day, *range(4), value=2.0)]
    sheet = [one for day in range(0, 70, 7) for one in on(day, *range(20), value=0.0)]
    sheet = [one for one in sheet if (one.animal, one.day) not in {(lame.animal, lame.day) for lame in found_lame}]
    found = associate(table_of(values), sheet + found_lame, "lameness", (0, 3), 199)
    assert (found.cases, found.left_out, found.sound, found.controls) == (4, 4, len(sheet), 16)
    assert found.findings == associate(table_of(values), found_lame, "lameness", (0, 3), 199).findings
    assert found.shown_before("way") == 3
    with pytest.raises(ConfigError, match=r"has 0 outcomes .* 200 lines have the value 0"):
        associate(table_of(values), [one for day in range(10) for one in on(day, *range(20), value=0.0)], "lameness")


def test_an_outcome_before_an_animal_has_a_past_hides_no_later_one():
    values = noise(20, 70)
    values[0, :4, 50:] -= 3
    outcomes = [*on(3, 0, 1, 9), *on(52, *range(4))]
    found = associate(table_of(values), outcomes, "lameness", (0,), 199)
    assert (found.cases, found.without_past, found.left_out) == (4, 1, 2)
    assert (found.animals, found.controls) == (19, 15)  # number 9 was lame, whether it can be tested or not
    assert found.detectable == pytest.approx(detectable_effect(4, 15))
    assert found.significant


def test_of_growth_who_was_never_weighed_is_compared_with_nobody():
    """Else gains of a few that vary much would be dealt to all that do not, and would seem to say something."""
    values = noise(30, 60)
    alone = replace(table := table_of(values), animals=table.animals[:12], values=values[:, :12])
    outcomes = [one for animal in range(12) for one in on(55, animal, value=float(animal % 5), kind="growth")]
    found = associate(table, outcomes, "growth", (0, 3), permutations=99)
    assert found == associate(alone, outcomes, "growth", (0, 3), permutations=99)
    assert found.animals == 12


def test_of_growth_it_makes_no_difference_how_much_more_another_batch_gained():
    """Two batches on their own days: compared is within a day, and a standard deviation of gain is of all."""
    slopes = []
    for apart in (0.0, 2.0, 12.0):
        rng = np.random.default_rng(0)
        values, outcomes = np.full((1, 24, 140), np.nan), []
        for batch, begin in enumerate((0, 70)):
            own, gains = slice(12 * batch, 12 * batch + 12), rng.normal(0, 1, 12)
            values[0, own, begin : begin + 50] = rng.normal(10, 1, (12, 50))
            values[0, own, begin + 40 : begin + 50] += 2 * gains[:, None]
            for animal, gain in enumerate(gains, own.start):
                outcomes += on(begin + 45, animal, value=float(gain + apart * batch), kind="growth")
        (found,) = associate(table_of(values), outcomes, "growth", leads=(0,)).findings
        assert found.low < found.effect < found.high
        slopes.append(found.effect / np.std([one.value for one in outcomes]))
    assert slopes == pytest.approx([slopes[0]] * 3)


def test_of_growth_who_is_left_with_nobody_to_compare_with_is_told_and_changes_nothing():
    """Of four others weighed on its days none has a past of its own."""
    rng = np.random.default_rng(0)
    values, gains = np.full((1, 17, 100), np.nan), rng.normal(0, 1, 12)
    values[0, :12, :50], values[0, 12:, 50:] = rng.normal(10, 1, (12, 50)), rng.normal(10, 1, (5, 50))
    values[0, :12, 40:50] += 2 * gains[:, None]
    outcomes = [one for animal, gain in enumerate(gains) for one in on(45, animal, value=float(gain), kind="growth")]
    alone = associate(table_of(values), outcomes, "growth", leads=(0,))
    outcomes += on(52, 13, 14, 15, 16, value=0.1, kind="growth") + on(95, 12, value=4.0, kind="growth")
    beside = associate(table_of(values), outcomes, "growth", leads=(0,))
    assert (alone.without_others, beside.without_others) == (0, 1)
    assert beside.findings == alone.findings


def test_of_growth_the_last_weighing_counts():
    gains = np.random.default_rng(3).normal(size=20)
    values = noise(20, 60) * 0.3
    values[0, :, 45:] += gains[:, None]
    outcomes = []
    for day in (0, 20, 48):
        for animal, gain in enumerate(gains):
            outcomes += on(day, animal, value=float(gain) * (day == 48), kind="growth")
    found = associate(table_of(values), outcomes, "growth", (0,), permutations=199)
    assert (found.cases, found.left_out, found.without_past) == (20, 40, 0)
    assert found.significant


def test_cases_without_others_of_their_pen_are_told():
    """A pen of four, of which two are lame, beside one of twelve that came later."""
    values = noise(16, 80)
    values[0, 4:, :30] = np.nan
    found = associate(table_of(values), [*on(40, 0, 1), *on(60, 4, 5, 6)], "lameness", (0, 14), 99)
    assert (found.cases, found.without_others, found.animals) == (3, 2, 14)


def test_of_each_animal_the_first_outcome_counts_and_the_others_are_told():
    outcomes = draw_outcomes(20, 60, 5, seed=0)
    again = [Outcome(one.animal, date(2026, 3, 1), "lameness", 1.0) for one in outcomes[:2]]
    found = associate(daily_table(simulate_hours(20, 60, 0, HOURS)), outcomes + again, "lameness", (0,), 99)
    assert (found.cases, found.left_out) == (5, 2)


def test_too_few_animals_are_refused_with_how_many_it_takes():
    table = table_of(noise(8, 60))
    with pytest.raises(ConfigError, match=r"has 2 outcomes .* among 8 animals, expected 3 .* among 10 or more") as told:
        associate(table, on(40, 0, 1), "lameness")
    assert "one standard deviation takes 16" in str(told.value)
    with pytest.raises(ConfigError, match=r"has 0 outcomes .*; 7 have fewer than 3 others to compare with"):
        associate(table, on(40, *range(7)), "lameness")
    with pytest.raises(ConfigError, match="6 animals with a value"):
        associate(table, on(40, *range(5), kind="growth"), "growth")
    with pytest.raises(ConfigError, match=r"has 3 outcomes .* among 8 animals, expected 3 .* among 10 or more"):
        associate(table, on(40, 0, 1, 2), "lameness")
    with pytest.raises(ConfigError, match=r"5 animals with one have no past before it.* it takes two weeks"):
        associate(table, on(9, *range(5)), "lameness")


def test_gains_that_are_all_equal_are_refused_as_such():
    for gain in (0.0, 0.1, 7.3):
        with pytest.raises(ConfigError, match=r"has the same value .* for all 20 animals .* values that differ"):
            associate(table_of(noise(20, 60)), on(55, *range(20), value=gain, kind="growth"), "growth", (0,), 99)


def test_numbers_needed_by_hand():
    assert [permutations_needed(level) for level in (0.05, 0.01, 0.005, 0.03)] == [19, 99, 199, 33]
    assert animals_needed(3) == 10  # C(9, 3) = 84 < 100 <= C(10, 3) = 120
    assert detectable_effect(16, 16) == pytest.approx(0.99, abs=0.01)  # 2.80 * sqrt(2 / 16)


def test_an_effect_that_turns_round_is_another_one_and_not_shown_before():
    effects = (-3.0, -2.0, 2.5, 2.5)
    findings = [Finding("way", lead, effect, 0, 0, 0.01, 0.01, 5) for lead, effect in enumerate(effects)]
    assert Association("lameness", 20, 5, 0, 0.05, 1.0, findings).shown_before("way") == 1
