from datetime import date

import numpy as np
import pytest

from pl_distill.reid.identities import link, merge, split, undo
from pl_distill.reid.thumbnails import Thumbnails

DAY = 86_400.0


@pytest.fixture
def herd(pool, sample):
    """Three animals of a track each."""
    pool.append([sample(0.0, number) for number in range(3)])
    for track, name in enumerate(("rosa", "emma", "lisa")):
        link(pool, [track], name)
    return pool


GREY = np.full((8, 8, 3), 128, np.uint8)


def seen(herd, name):
    """Brightness of an animal's picture on each of its days, as the pool names animals now."""
    pictures = Thumbnails(herd.path, herd.owners())
    return {day.day: round(pictures.read(name, day).mean() / 8) * 8 for day in pictures.days(name)}


def test_pictures_follow_their_tracks_over_merges_splits_and_their_undoing(herd):
    kept = Thumbnails(herd.path)
    kept.offer("rosa", 0.0, GREY, 0)
    kept.offer("emma", 0.0, GREY // 2, 1)
    kept.offer("emma", DAY, GREY // 2, 1)
    number = merge(herd, "emma", "rosa")
    assert (seen(herd, "rosa"), seen(herd, "emma")) == ({1: 64, 2: 64}, {})  # of a day with two the first by its name
    gone = split(herd, [1], "berta")
    assert (seen(herd, "rosa"), seen(herd, "berta")) == ({1: 128}, {1: 64, 2: 64})
    undo(herd, gone)
    undo(herd, number)
    assert (seen(herd, "rosa"), seen(herd, "emma")) == ({1: 128}, {1: 64, 2: 64})


def test_animals_that_exchange_their_names_keep_their_pictures(herd):
    """Ear tags were swapped."""
    kept = Thumbnails(herd.path)
    kept.offer("rosa", 0.0, GREY, 0)
    kept.offer("emma", 0.0, GREY // 2, 1)
    for old, new in (("rosa", "aside"), ("emma", "rosa"), ("aside", "emma")):
        merge(herd, old, new)
    assert (seen(herd, "emma"), seen(herd, "rosa")) == ({1: 128}, {1: 64})


def test_one_picture_of_a_day_is_kept_whatever_track_shows_the_animal_and_after_a_restart(herd):
    kept = Thumbnails(herd.path)
    assert kept.offer("rosa", 0.0, GREY, 0)
    assert not kept.offer("rosa", 60.0, GREY, 7)
    assert not Thumbnails(herd.path).offer("rosa", 120.0, GREY, 8)
    assert kept.offer("rosa", DAY, GREY, 8)


@pytest.mark.parametrize("names", [("小花", "大花"), ("sow 17", "sow_17"), ("a/b", "a.b")])
def test_two_names_never_share_a_picture(tmp_path, names):
    pictures = Thumbnails(tmp_path)
    for value, name in zip((50, 200), names, strict=True):
        assert pictures.offer(name, 0.0, np.full((8, 8, 3), value, np.uint8))
    assert [pictures.read(name, date(1970, 1, 1)).mean() for name in names] == pytest.approx([50, 200], abs=2)


@pytest.mark.parametrize("name", ["animal-0001", "sow_17"])
def test_a_plain_name_is_that_of_its_folder(tmp_path, name):
    Thumbnails(tmp_path).offer(name, 0.0, np.full((8, 8, 3), 128, np.uint8))
    assert (tmp_path / "thumbnails" / name / "1970_01_01.jpg").exists()


@pytest.mark.parametrize(
    "name", ["._1970_01_01-track0.jpg", "rosa.jpg", "1970_02_30-track0.jpg", "1970_01_01-track0 copy.jpg"]
)
def test_pictures_of_somebody_else_beside_ours_are_passed_by(herd, name):
    Thumbnails(herd.path).offer("rosa", 0.0, GREY, 0)
    next(herd.path.glob("thumbnails/rosa/*.jpg")).with_name(name).write_bytes(b"")
    assert seen(herd, "rosa") == {1: 128}
