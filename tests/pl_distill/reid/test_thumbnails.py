from datetime import date

import numpy as np
import pytest

from pl_distill.reid.identities import events, former_names, link, merge, split, undo
from pl_distill.reid.thumbnails import Thumbnails

DAY = 86_400.0


@pytest.fixture
def herd(pool, sample):
    """Three animals of a track each."""
    pool.append([sample(0.0, number) for number in range(3)])
    for track, name in enumerate(("rosa", "emma", "lisa")):
        link(pool, [track], name)
    return pool


def test_names_follow_every_merge_and_its_undoing(herd):
    assert former_names(herd) == {"emma": [], "lisa": [], "rosa": []}
    first = merge(herd, "lisa", "emma")
    second = merge(herd, "emma", "sow-17")
    assert former_names(herd) == {"rosa": [], "sow-17": ["emma", "lisa"]}
    merge(herd, "sow-17", "emma")  # renamed back
    assert former_names(herd) == {"emma": ["lisa", "sow-17"], "rosa": []}
    for number in (len(events(herd)) - 1, second, first):
        undo(herd, number)
    assert former_names(herd) == {"emma": [], "lisa": [], "rosa": []}


def test_who_has_its_name_again_after_a_split_is_nobody_elses_past(herd):
    merge(herd, "lisa", "emma")
    split(herd, [2], "lisa")
    assert former_names(herd) == {"emma": [], "lisa": [], "rosa": []}


def test_a_merged_animal_has_the_pictures_of_both_names(herd):
    grey = np.full((8, 8, 3), 128, np.uint8)
    pictures = Thumbnails(herd.path)
    pictures.offer("rosa", 0.0, grey)
    pictures.offer("emma", 0.0, grey // 2)
    pictures.offer("emma", DAY, grey // 2)
    merge(herd, "emma", "rosa")
    pictures = Thumbnails(herd.path, former_names(herd))
    assert pictures.days("rosa") == [date(1970, 1, 1), date(1970, 1, 2)]
    assert pictures.read("rosa", date(1970, 1, 1)).mean() == pytest.approx(128, abs=2)
    assert pictures.read("rosa", date(1970, 1, 2)).mean() == pytest.approx(64, abs=2)


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
