from contextlib import suppress

import pytest

from pl_distill.reid.errors import PoolError
from pl_distill.reid.identities import events, link, merge, new_name, split, undo
from pl_distill.reid.track_book import UNKNOWN


@pytest.fixture
def herd(pool, sample):
    pool.append([sample(1000.0 * number, number) for number in range(4)])
    link(pool, [0, 1], "rosa")
    link(pool, [2], "emma")
    return pool


def test_merging_moves_every_track_and_undoing_brings_each_back(herd):
    number = merge(herd, "rosa", into="emma", reason="same ear tag")
    assert herd.animals == ["emma"]
    assert herd.count() == {"": 1, "emma": 3}
    undo(herd, number)
    assert (herd.tracks_of("rosa"), herd.tracks_of("emma")) == ([0, 1], [2])


def test_undoing_a_renaming_takes_along_what_came_to_the_new_name_since(herd, sample):
    renaming = merge(herd, "rosa", into="sow-17")
    herd.append([sample(5000, 4), sample(6000, 5)])
    link(herd, [4, 5], "sow-17")
    merge(herd, "emma", into="sow-17")
    gone = split(herd, [5], "lisa")
    undo(herd, renaming)
    assert (herd.tracks_of("rosa"), herd.tracks_of("lisa"), herd.animals) == ([0, 1, 2, 4], [5], ["lisa", "rosa"])
    follower = events(herd)[-1]
    assert (follower.kind, follower.before, follower.renames) == ("merge", {2: "sow-17", 4: "sow-17"}, False)
    undo(herd, follower.number)
    assert herd.tracks_of("sow-17") == [2, 4]
    undo(herd, gone)
    assert herd.tracks_of("sow-17") == [2, 4, 5]


def test_undoing_a_merge_into_another_leaves_that_one_what_came_to_it_since(herd, sample):
    number = merge(herd, "rosa", into="emma")
    herd.append([sample(5000, 4)])
    link(herd, [4], "emma")
    undo(herd, number)
    assert (herd.tracks_of("rosa"), herd.tracks_of("emma")) == ([0, 1], [2, 4])


@pytest.fixture
def misread(pool, sample):
    """A tag misread, corrected, and then given to the animal that has it: two animals, both sow-5 once."""
    pool.append([sample(1000.0 * number, number) for number in range(2)])
    link(pool, [0], "animal-0001")
    link(pool, [1], "animal-0002")
    assert merge(pool, "animal-0001", into="sow-5", reason="misread") == 2
    assert merge(pool, "sow-5", into="sow-6", reason="corrected") == 3
    assert merge(pool, "animal-0002", into="sow-5", reason="the true one") == 4
    return pool


def test_a_name_that_another_animal_got_meanwhile_is_not_given_back(misread):
    with pytest.raises(PoolError, match=r"'sow-5', which is another animal since event 4.*Undo event 4 first"):
        undo(misread, 3)
    assert (misread.tracks_of("sow-6"), misread.tracks_of("sow-5")) == ([0], [1])
    undo(misread, 4)
    undo(misread, 3)
    assert (misread.tracks_of("sow-5"), misread.tracks_of("animal-0002")) == ([0], [1])


def test_a_name_that_is_free_again_is_given_back(misread):
    merge(misread, "sow-5", into="sow-8")
    undo(misread, 3)
    assert (misread.tracks_of("sow-5"), misread.tracks_of("sow-8")) == ([0], [1])


def test_undoing_a_renaming_leaves_whom_an_older_version_had_mixed_in_under_that_name(misread):
    with misread.transaction() as connection:  # as it took event 3 back
        misread.assign([0], "sow-5")
        connection.execute("UPDATE events SET undone = true WHERE event = 3")
    undo(misread, 4)
    assert (misread.tracks_of("sow-5"), misread.tracks_of("animal-0002")) == ([0], [1])


@pytest.mark.parametrize("again", ["renaming", "split"])
def test_a_merge_is_not_undone_while_the_name_is_of_another(herd, sample, again):
    herd.append([sample(5000, 4), sample(6000, 5)])
    link(herd, [4, 5], "lisa")
    number = merge(herd, "rosa", into="emma")
    taken = merge(herd, "lisa", into="rosa") if again == "renaming" else split(herd, [5], "rosa")
    with pytest.raises(PoolError, match=f"'rosa', which is another animal since event {taken}"):
        undo(herd, number)
    undo(herd, taken)
    undo(herd, number)
    assert (herd.tracks_of("rosa"), herd.tracks_of("emma"), herd.tracks_of("lisa")) == ([0, 1], [2], [4, 5])


def test_a_split_gives_its_tracks_back_to_an_animal_that_has_seen_more_since(herd, sample):
    number = split(herd, [1], "lisa")
    herd.append([sample(5000, 4)])
    link(herd, [4], "rosa")
    split(herd, [0], "berta")  # the first of its tracks; it is still rosa who is left
    undo(herd, number)
    assert herd.tracks_of("rosa") == [1, 4]


def test_splitting_takes_tracks_to_a_new_animal_and_can_be_undone(herd):
    number = split(herd, [1], "lisa", reason="two animals under one name")
    assert (herd.tracks_of("rosa"), herd.tracks_of("lisa")) == ([0], [1])
    undo(herd, number)
    assert (herd.tracks_of("rosa"), herd.tracks_of("lisa")) == ([0, 1], [])


def test_the_log_outlives_the_process_and_says_what_was_undone(open_pool, sample):
    with open_pool() as pool:
        pool.append([sample(0)])
        link(pool, [0], "rosa")
        undo(pool, merge(pool, "rosa", into="emma", reason="by mistake"))
    with open_pool() as pool:
        log = events(pool)
        assert [(event.kind, event.reason, event.undone) for event in log] == [
            ("link", "", False),
            ("merge", "by mistake", True),
        ]
        assert log[0].before == {0: UNKNOWN}
        assert pool.animals == ["rosa"]


def test_an_event_under_a_later_one_of_the_same_tracks_is_not_undone(herd):
    first = merge(herd, "rosa", into="emma")
    second = split(herd, [0], "lisa")
    with pytest.raises(PoolError, match=f"Undo event {second} first"):
        undo(herd, first)
    undo(herd, second)
    undo(herd, first)
    assert herd.tracks_of("rosa") == [0, 1]
    with pytest.raises(PoolError, match="undone already"):
        undo(herd, first)


@pytest.mark.parametrize("into", ["sow-17", "emma"])
def test_a_split_is_not_undone_to_a_name_that_its_animal_has_no_more(herd, into):
    """Its tracks would be an animal of their own, under a name that was corrected since."""
    number = split(herd, [1], "stray")
    merged = merge(herd, "rosa", into=into)
    with pytest.raises(PoolError, match=f"would bring 'rosa' back, which event {merged} made '{into}'"):
        undo(herd, number)
    undo(herd, merged)
    undo(herd, number)
    assert (herd.tracks_of("rosa"), herd.tracks_of("emma")) == ([0, 1], [2])


def test_what_makes_no_sense_is_refused_by_name(herd):
    with pytest.raises(PoolError, match=r"animal 'berta': is not in the pool, expected emma, rosa"):
        merge(herd, "berta", into="rosa")
    with pytest.raises(PoolError, match="merged into 'rosa'"):
        merge(herd, "rosa", into="rosa")
    with pytest.raises(PoolError, match="track 99"):
        split(herd, [99], "lisa")
    with pytest.raises(PoolError, match="exists already"):
        split(herd, [0], "emma")
    with pytest.raises(PoolError, match="--tracks: is empty"):
        split(herd, [], "lisa")
    with pytest.raises(PoolError, match="animal '': is no name"):
        split(herd, [0], "  ")
    with pytest.raises(PoolError, match="merged into ''"):
        merge(herd, "rosa", into="  ")
    with pytest.raises(PoolError, match="event 99: does not exist"):
        undo(herd, 99)


def test_a_name_is_never_given_twice(pool, sample):
    pool.append([sample(0), sample(0, 2)])
    first = new_name(pool)
    link(pool, [0], first)
    merge(pool, first, into="rosa")
    assert (first, new_name(pool)) == ("animal-0001", "animal-0002")
    assert new_name(pool) == "animal-0002"
    link(pool, [1], "animal-0002")
    assert new_name(pool) == "animal-0003"


def test_a_name_that_is_only_in_the_log_is_not_given_after_a_restart(open_pool, sample):
    with open_pool() as pool:
        pool.append([sample(0)])
        link(pool, [0], "animal-0041", reason='looks like "animal-0099"')
        merge(pool, "animal-0041", into="rosa")
    with open_pool() as pool:
        assert new_name(pool) == "animal-0042"
        with suppress(RuntimeError), pool.transaction():
            link(pool, [0], "animal-0042")
            raise RuntimeError
        assert new_name(pool) == "animal-0042"


def test_neither_animals_nor_names_read_every_track_or_event(herd, monkeypatch):
    """They are asked for in frames of a camera, over years."""
    new_name(herd)
    monkeypatch.setattr(herd, "rows", None)
    herd._book._ask, herd._book.animal_of = None, None
    assert herd.animals == ["emma", "rosa"]
    assert new_name(herd) == "animal-0001"


def test_blanks_around_a_typed_name_make_no_second_animal(herd):
    merge(herd, "rosa", into="sow-17")
    merge(herd, "emma", into="sow-17 ")
    assert herd.animals == ["sow-17"]
