import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pl_distill.reid.gallery import BoundedGallery, MeanGallery, RunningMeans, SightingsGallery, choose_by_age, recency

DAY = 86_400.0
RIGHT, UP, LEFT = np.float32([1, 0]), np.float32([0, 1]), np.float32([-1, 0])


def test_the_best_sighting_counts_and_the_mean_forgets_a_rare_look():
    names, vectors = ["a", "a", "a", "b"], np.stack([RIGHT, RIGHT, UP, np.float32([0.6, 0.8])])
    sightings = SightingsGallery.of(names, np.zeros(4), vectors)
    assert sightings.scores(UP[None])[0] == pytest.approx([1.0, 0.8])
    means = MeanGallery.of(names, vectors)
    assert means.scores(UP[None])[0] == pytest.approx([1 / np.sqrt(5), 0.8])


def test_age_counts_from_the_animals_newest_sighting():
    names, times = ["a", "a", "b"], np.array([0, 10 * DAY, 0])
    gallery = SightingsGallery.of(names, times, np.stack([RIGHT, UP, RIGHT]), decay_per_day=0.01)
    assert gallery.scores(RIGHT[None])[0] == pytest.approx([0.9, 1.0])  # b was away, but is not less itself


def test_a_recent_mean_forgets_with_its_half_life():
    weights = recency(np.array([0, 10 * DAY, 10 * DAY]), half_life_days=5)
    assert weights.tolist() == [0.25, 1.0, 1.0]
    gallery = MeanGallery.of(["a", "a", "b"], np.stack([UP, RIGHT, LEFT]), weights)
    assert gallery.scores(UP[None])[0] == pytest.approx([0.25 / np.hypot(1, 0.25), 0.0])


def test_unsorted_animals_are_grouped():
    gallery = SightingsGallery.of(["b", "a", "b"], np.zeros(3), np.stack([LEFT, UP, RIGHT]))
    assert gallery.animals == ("a", "b")
    assert gallery.scores(np.stack([RIGHT, UP])) == pytest.approx(np.array([[0, 1], [1, 0]]))


def test_an_empty_gallery_knows_nobody():
    assert BoundedGallery().gallery.scores(RIGHT[None]).shape == (1, 0)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 40_000_000), min_size=1, max_size=80), st.integers(2, 40))
def test_chosen_rows_are_as_many_as_wished_with_the_newest_and_the_oldest(times, keep):
    times = np.sort(np.array(times, float))
    assert choose_by_age(times, 1).tolist() == [len(times) - 1]
    rows = choose_by_age(times, keep)
    assert len(rows) == min(keep, len(times))
    assert (np.diff(rows) > 0).all()
    assert {times[0], times[-1]} <= set(times[rows])


def test_recent_days_are_dense_and_old_ones_sparse():
    times = np.arange(0, 365 * DAY, 3600)
    age_days = (times[-1] - times[choose_by_age(times, 512)]) / DAY
    assert (age_days < 7).sum() > 100
    assert (age_days > 180).sum() > 20


def test_a_bounded_gallery_that_learns_one_by_one_keeps_every_age_as_one_that_learns_all_at_once():
    times = np.arange(0, 120 * DAY, DAY / 24)
    one_by_one, at_once = BoundedGallery(per_animal=64), BoundedGallery(per_animal=64)
    at_once.add("a", times, np.zeros((len(times), 2), np.float32))
    for time in times:
        one_by_one.add("a", np.array([time]), np.zeros((1, 2), np.float32))
    ages = [0, 1, 3, 10, 30, 121]
    counts = [np.histogram((times[-1] - held._times["a"]) / DAY, ages)[0].tolist() for held in (one_by_one, at_once)]
    assert np.abs(np.subtract(*counts)).max() <= 4, counts
    assert sum(counts[0]) == 64


def test_a_bounded_gallery_stays_bounded_and_forgets_no_animal():
    gallery = BoundedGallery(per_animal=5)
    gallery.add("once", np.array([0.0]), UP[None])
    for day in range(50):
        gallery.add("daily", np.array([day * DAY]), RIGHT[None])
    assert len(gallery) == 6
    assert gallery.gallery.animals == ("daily", "once")
    gallery.forget("daily")
    assert gallery.gallery.animals == ("once",)


@pytest.mark.parametrize("half_life", [None, 5.0])
def test_a_running_mean_is_that_of_all_vectors_in_whatever_parts_they_came(unit, half_life):
    vectors, times = unit(12, 16, seed=3), np.arange(12) * DAY
    held = RunningMeans(half_life)
    for part in (slice(4, 7), slice(0, 4), slice(7, 12)):  # not in the order of time: a camera may read an older run
        held.add("a", times[part], vectors[part])
    held.add("b", times[:1], vectors[:1])
    weights = None if half_life is None else recency(times, half_life)
    whole = MeanGallery.of(["a"] * 12, vectors, weights)
    assert held.gallery.animals == ("a", "b")
    np.testing.assert_allclose(held.gallery.means[0], whole.means[0], atol=1e-6)
    held.forget("a")
    assert held.animals == ["b"]


def test_running_means_of_nobody_know_nobody():
    assert RunningMeans().gallery.scores(RIGHT[None]).shape == (1, 0)
