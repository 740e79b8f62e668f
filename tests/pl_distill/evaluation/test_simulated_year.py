import numpy as np
import pytest

from pl_distill.errors import ConfigError
from pl_distill.evaluation.simulated_year import YearPlan, draw_year
from pl_distill.models.embedder_load import load_embedder
from pl_distill.reid.thumbnails import Thumbnails


def test_pairs_of_days_are_drawn():
    assert YearPlan(days=32, every_days=15).drawn_days == [0, 1, 15, 16, 30, 31]
    assert YearPlan(days=31, every_days=15).drawn_days == [0, 1, 15, 16, 30]


@pytest.mark.parametrize("changes", [{"pens": 0}, {"views": 1}, {"seed": 1_000_000}, {"every_days": 0}])
def test_a_plan_that_draws_nothing_or_what_was_trained_on_is_refused(changes):
    with pytest.raises(ConfigError, match="plan"):
        YearPlan(**changes)


def test_a_year_is_drawn_once_and_embedded_for_whoever_wants_the_same_crops(tmp_path):
    plan = YearPlan(pens=1, days=8, every_days=7, views=2)
    embedder = load_embedder()
    steps = []
    first = draw_year(plan, embedder, tmp_path, steps.append)
    assert steps == [1, 1, 1]
    assert first.names == tuple(f"pen-000-{number:02d}" for number in range(8))
    assert first.pens.tolist() == [0] * 8
    assert set(first.days) == {0, 1, 7}
    assert np.linalg.norm(first.vectors, axis=1) == pytest.approx(1, abs=1e-4)
    again = draw_year(plan, embedder, tmp_path, steps.append)
    assert steps == [1, 1, 1, 3]
    assert (again.vectors == first.vectors).all()
    assert Thumbnails(tmp_path).days("pen-000-03")


def test_a_pen_whose_recipe_changed_is_drawn_anew(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("domain: mine\nnum_animals: 2\n")
    plan = YearPlan(domain=str(recipe), days=2, every_days=2, views=2)
    steps = []
    assert len(draw_year(plan, load_embedder(), tmp_path / "year", steps.append).names) == 2
    recipe.write_text("domain: mine\nnum_animals: 3\n")
    assert len(draw_year(plan, load_embedder(), tmp_path / "year", steps.append).names) == 3
    assert steps == [1, 1, 1, 1]
