import numpy as np
import pytest

from datamodules.cached_views import CachedViews
from datamodules.errors import CacheError, UserError
from datamodules.views import View


def test_the_first_view_is_the_whole_picture_and_the_others_are_parts_of_it():
    views = CachedViews(count=40, zoom=0.5, mirror_y=True)
    assert views.view("a-f000001", 0) == View()
    drawn = [views.view("a-f000001", number) for number in range(1, 40)]
    for view in drawn:
        assert 0.5 <= view.width <= 1
        assert 0.5 <= view.height <= 1
        assert 0 <= view.left <= view.left + view.width <= 1
        assert 0 <= view.top <= view.top + view.height <= 1
    assert {view.mirror_x for view in drawn} == {view.mirror_y for view in drawn} == {False, True}
    assert not any(view.mirror_x or view.mirror_y for view in _drawn(CachedViews(count=40, mirror_x=False)))


def _drawn(views, key="a"):
    return [views.view(key, number) for number in range(views.count)]


def test_frames_seeds_and_numbers_have_views_of_their_own_and_keep_them():
    views = CachedViews(count=3, seed=5)
    assert _drawn(views) == _drawn(CachedViews(count=3, seed=5))
    assert views.view("a", 1) != views.view("a", 2)
    assert views.view("a", 1) != views.view("b", 1)
    assert views.view("a", 1) != CachedViews(count=3, seed=6).view("a", 1)
    assert CachedViews(count=9, seed=5).view("a", 2) == views.view("a", 2)  # more views, the same first ones
    # Written down, so that a cache of today fits the views of tomorrow.
    assert np.allclose([views.view("a", 1).left, views.view("a", 1).width], VIEW_OF_A, atol=1e-12)


VIEW_OF_A = (0.07004758858853603, 0.851397355095959)


def test_a_description_gives_the_views_back_and_one_view_is_described_alike_whatever_the_seed():
    views = CachedViews(count=4, seed=7, zoom=0.7, mirror_y=True)
    assert CachedViews.from_description(views.describe(), "cache") == views
    assert CachedViews(seed=1).describe() == CachedViews(seed=2, zoom=0.3).describe() == {"count": 1}


def test_only_training_frames_have_several_views():
    assert [CachedViews(count=3).of_part(part) for part in ("train", "val", "test")] == [3, 1, 1]


@pytest.mark.parametrize(("name", "value"), [("count", 0), ("zoom", 0.0), ("zoom", 1.2)])
def test_numbers_out_of_range_are_refused(name, value, refused):
    refused(UserError, lambda: CachedViews(**{name: value}), where=f"views.{name}", found=f"is {value}")
    call = lambda: CachedViews.from_description({"count": 2, name: value}, "cache")  # noqa: E731
    refused(CacheError, call, where="cache", found=f"'{name}': {value}")


def test_a_description_of_another_kind_is_refused(refused):
    call = lambda: CachedViews.from_description({"count": 2, "rotate": 90}, "cache")  # noqa: E731
    refused(CacheError, call, where="cache", found="rotate")
