import numpy as np

from tests.benchmarks.bench_reid import many_tracks, track_start


def test_the_start_of_track_is_measured_on_a_pool_and_its_animals_are_named():
    figures = {figure.name: figure for figure in track_start(np.random.default_rng(0), each=200)}
    assert all(figure.value > 0 for figure in figures.values())
    assert [name for name, figure in figures.items() if figure.goal] == ["reid.track_query_full_over_hundredth"]


def test_the_cost_of_many_tracks_is_a_ratio_with_a_goal():
    figures = list(many_tracks(np.random.default_rng(0), tracks=400))
    assert all(figure.value > 0 and figure.goal for figure in figures)
    assert len(figures) == 2
