"""Which days of a simulated year are asked about, and what is refused before a day is drawn."""

import pytest

from pl_distill.commands.reid import year
from pl_distill.errors import ConfigError
from pl_distill.evaluation.simulated_year import YearPlan
from pl_distill.evaluation.year_scoring import YearScoring

DRAWN = [0, 1, 10, 11, 20, 21, 30, 31]


def test_days_are_asked_that_lie_a_gap_after_another_one_and_after_validation():
    how = YearScoring(gaps=(1, 10, 7), validation_days=20, test_days=8)
    assert how.choosing(DRAWN) == [(1, 1), (11, 1), (10, 10), (11, 10)]
    assert how.asked(DRAWN, 1) == [21, 31]
    assert how.asked(DRAWN, 10) == [20, 21, 30, 31]
    assert how.check(DRAWN) == [7]
    assert YearScoring(gaps=(10,), validation_days=20, test_days=2).asked(DRAWN, 10) == [20, 31]


@pytest.mark.parametrize(
    ("scoring", "found"),
    [
        ({"validation_days": 32}, "is 32 of 32 days"),  # nothing is left to score
        ({"gaps": (25,)}, "leaves none of the gaps"),  # nothing can be chosen
    ],
)
def test_a_year_that_cannot_be_scored_is_refused_before_it_is_drawn(scoring, found, tmp_path):
    how = YearScoring(**{"gaps": (1, 10), "validation_days": 20, **scoring})
    with pytest.raises(ConfigError, match=found):
        year(tmp_path / "out", plan=YearPlan(days=32, every_days=10), scoring=how)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"gaps": ()}, {"gaps": (0,)}, {"test_days": 0}, {"per_hour": 0}, {"bounded": 0}])
def test_numbers_without_a_meaning_are_refused(wrong):
    with pytest.raises(ConfigError, match="every number 1 or more"):
        YearScoring(**wrong)
