import pytest

from pl_distill.evaluation.simulated_year import YearPlan
from pl_distill.models.embedder_load import load_embedder
from tests.benchmarks.bench_year import store, year

PLAN = YearPlan(pens=1, days=62, every_days=30, views=2)
OPTIONS = [
    "--plan.pens=1", "--plan.days=62", "--plan.every_days=30", "--plan.views=2",
    "--scoring.per_hour=1", "--scoring.gaps=[1,30]", "--scoring.validation_days=32",
]  # fmt: skip


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    out = tmp_path_factory.mktemp("year") / "eight"
    found = [*year("eight", out, OPTIONS), *store(out, load_embedder(), PLAN, per_hour=1)]
    return {figure.name: figure for figure in found}


def test_every_gallery_has_its_scores_at_every_gap(figures):
    places = {name.rsplit(".", 1)[0] for name in figures if "_days." in name}
    assert places == {
        f"year.eight.{method}_after_{gap}_days" for method in ("sightings", "recent", "mean") for gap in (1, 30)
    }
    assert all(0 <= figure.value <= 100 for name, figure in figures.items() if "_days." in name)
    assert figures["year.eight.mean_after_1_days.rank1"].value > 12.5, "chance among eight"


def test_the_store_holds_the_whole_archive(figures):
    assert figures["year.store_vectors"].value == 8 * 62 * 24
    assert figures["year.store_mb"].value > 8 * 62 * 24 * 128 * 4 / 1e6
