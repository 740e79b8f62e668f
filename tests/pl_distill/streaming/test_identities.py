"""Identities by looks, with vectors that are worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pl_distill.errors import ConfigError
from pl_distill.streaming import Appearance
from pl_distill.streaming.identities import Change, Identities

RULES = Appearance(recent=2, needed=2, settled=2, decay=1.0, likeness=0.7, lead=0.15, animals=8)
"""A look counts as the animal's after four moments, so that two animals know each other apart from the sixth on."""

RED, GREEN, BLUE = np.eye(4, dtype=np.float32)[:3]
PINK = np.array([0.96, 0.28, 0, 0], np.float32)  # a cosine of 0.96 with red


def stream(identities, moments, times=1):
    """Give moments, each track -> look or None; return what the tracks of each are called."""
    called = []
    for looks in moments * times:
        identities.look(list(looks), {track: look for track, look in looks.items() if look is not None})
        called.append(identities.of(looks))
    return called


def test_a_track_without_a_past_is_a_new_animal():
    identities = Identities(RULES)
    assert identities.of([7, 3]) == (0, 1)
    assert identities.of([3, 9, 7]) == (1, 2, 0)


def test_tracks_that_changed_places_get_their_identities_back():
    identities = Identities(RULES)
    assert set(stream(identities, [{0: RED, 1: GREEN}], 8)) == {(0, 1)}
    after = stream(identities, [{0: GREEN, 1: RED}], 8)
    assert after[0] == (0, 1)  # one look of two
    assert set(after[2:]) == {(1, 0)}


def test_what_was_seen_while_places_changed_is_nobodys():
    """The animal that was called 0 when its track showed green must not have learned it."""
    identities = Identities(RULES)
    stream(identities, [{0: RED, 1: GREEN}], 8)
    stream(identities, [{0: GREEN, 1: RED}], 8)
    assert set(stream(identities, [{0: GREEN, 1: RED}], 50)) == {(1, 0)}
    assert stream(identities, [{0: RED, 1: GREEN}], 4)[-1] == (0, 1)


def test_three_animals_that_went_round_in_a_circle():
    identities = Identities(RULES)
    stream(identities, [{0: RED, 1: GREEN, 2: BLUE}], 8)
    assert stream(identities, [{0: BLUE, 1: RED, 2: GREEN}], 4)[-1] == (2, 0, 1)


def test_animals_that_look_alike_keep_their_identities():
    """Each looks like the other for a while, but by less than the lead: 0.96 with it and 1.0 with itself before."""
    identities = Identities(RULES)
    stream(identities, [{0: RED, 1: PINK}], 8)
    assert set(stream(identities, [{0: PINK, 1: RED}], 8)) == {(0, 1)}
    bold = Identities(replace(RULES, lead=0.0))
    stream(bold, [{0: RED, 1: PINK}], 8)
    assert stream(bold, [{0: PINK, 1: RED}], 8)[-1] == (1, 0)


def test_an_animal_that_was_lost_is_recognised_and_the_number_of_its_new_track_never_comes_back():
    identities = Identities(RULES)
    stream(identities, [{0: RED, 1: GREEN}], 8)
    identities.keep([1])
    assert stream(identities, [{1: GREEN}], 20)[-1] == (1,)
    back = stream(identities, [{1: GREEN, 5: RED}], 4)
    assert back[0] == (1, 2)
    assert back[-1] == (1, 0)
    assert identities.remembered() == {0, 1}
    assert identities.of([5, 6]) == (0, 3)


def test_an_animal_unlike_all_others_is_new():
    identities = Identities(RULES)
    stream(identities, [{0: RED, 1: GREEN}], 8)
    identities.keep([1])
    assert set(stream(identities, [{1: GREEN, 5: BLUE}], 20)) == {(1, 2)}


@pytest.mark.parametrize(("likeness", "called"), [(0.9, 2), (0.97, 3)])
def test_how_alike_a_new_track_must_be(likeness, called):
    """Pink against red, a cosine of 0.96."""
    identities = Identities(replace(RULES, likeness=likeness))
    stream(identities, [{0: GREEN, 1: BLUE, 2: RED}], 8)
    identities.keep([0, 1])
    assert stream(identities, [{0: GREEN, 1: BLUE, 9: PINK}], 4)[-1] == (0, 1, called)


def test_nobody_takes_the_identity_of_a_track_that_is_shown_but_not_seen_well():
    identities = Identities(RULES)
    stream(identities, [{0: RED, 1: GREEN}], 8)
    assert set(stream(identities, [{0: None, 1: RED}], 8)) == {(0, 1)}


def test_a_track_out_of_sight_loses_its_identity_to_one_that_looks_like_it():
    identities = Identities(RULES)
    stream(identities, [{0: RED, 1: GREEN}], 8)
    stream(identities, [{1: GREEN}], 2)  # 0 is alive, but was not shown of late
    assert stream(identities, [{1: GREEN, 2: RED}], 4)[-1] == (1, 0)
    assert identities.of([0]) == (3,)


def test_changes_are_told():
    identities = Identities(RULES)
    stream(identities, [{0: RED, 1: GREEN}], 8)
    told = [identities.look([0, 1], {0: GREEN, 1: RED}) for _ in range(3)]
    assert told == [[], [Change(0, 1, True), Change(1, 0, True)], []]


def test_who_loses_an_identity_is_told_too_shown_or_not():
    identities = Identities(RULES)
    stream(identities, [{0: RED, 1: GREEN}], 8)
    stream(identities, [{1: GREEN}], 2)
    told = [identities.look([1, 2], {1: GREEN, 2: RED}) for _ in range(2)]
    assert told == [[], [Change(2, 0, True), Change(0, 3, False)]]


def test_nothing_is_learned_of_animals_that_are_seen_too_seldom_to_be_judged():
    """Two that changed places unseen, and are then seen every third moment of the two that are needed."""
    identities = Identities(RULES)
    stream(identities, [{0: RED, 1: GREEN}], 8)
    hidden, seen = {0: None, 1: None}, {0: GREEN, 1: RED}
    assert set(stream(identities, [seen, hidden, hidden], 40)) == {(0, 1)}
    assert stream(identities, [seen], 3)[-1] == (1, 0)


def test_an_animal_does_not_learn_a_stranger_that_its_track_went_over_to():
    identities = Identities(RULES)
    stream(identities, [{0: RED, 1: GREEN}], 8)
    assert set(stream(identities, [{0: BLUE, 1: GREEN}], 100)) == {(0, 1)}
    assert stream(identities, [{0: BLUE, 1: GREEN, 2: RED}], 4)[-1] == (3, 1, 0)


def test_a_new_track_that_looks_like_two_lost_animals_is_neither():
    identities = Identities(replace(RULES, lead=0.1))
    stream(identities, [{0: RED, 1: PINK, 2: GREEN}], 8)
    identities.keep([2])
    between = (RED + PINK) / np.linalg.norm(RED + PINK)
    assert set(stream(identities, [{2: GREEN, 7: between}], 10)) == {(2, 3)}


def test_a_track_that_ended_in_its_first_moments_is_forgotten():
    identities = Identities(RULES)
    stream(identities, [{0: RED}], 3)
    identities.keep([])
    assert identities.remembered() == set()
    assert identities.bytes() == 0
    assert identities.known_as(0) is None


def test_after_a_pause_nobody_is_recognised():
    identities = Identities(RULES)
    stream(identities, [{0: RED, 1: GREEN}], 8)
    identities.forget_all()
    assert stream(identities, [{4: RED, 5: GREEN}], 20)[-1] == (2, 3)


def test_a_thousand_animals_take_no_more_room_than_the_rules_allow():
    identities = Identities(RULES)
    rng = np.random.default_rng(0)
    sizes = []
    for track in range(1000):
        look = rng.normal(size=16).astype(np.float32)
        stream(identities, [{track: look / np.linalg.norm(look)}], 7)
        identities.keep([])
        sizes.append(identities.bytes())
        assert len(identities.remembered()) <= RULES.animals + 1
    assert max(sizes) == sizes[100] == (RULES.animals + 1) * 16 * 4


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_seen_no_two_tracks_are_called_alike_and_what_was_forgotten_never_comes_back(data):
    identities = Identities(replace(RULES, animals=3))
    looks = (RED, GREEN, BLUE, PINK, None)
    seen, gone = set(), set()
    for _ in range(data.draw(st.integers(1, 40))):
        shown = data.draw(st.lists(st.integers(0, 6), unique=True, max_size=5))
        identities.look(shown, {t: v for t in shown if (v := looks[data.draw(st.integers(0, 4))]) is not None})
        called = identities.of(shown)
        assert len(set(called)) == len(called)
        assert set(called) <= identities.remembered()
        assert not set(called) & gone
        if shown and data.draw(st.booleans()):
            identities.keep(data.draw(st.sets(st.integers(0, 6))))
        seen |= set(called)
        gone |= seen - identities.remembered()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"recent": 0}, "appearance.recent: is 0, expected at least 1"),
        ({"needed": 9}, r"appearance.needed: is 9, expected at most recent \(8\)"),
        ({"settled": 0}, "appearance.settled: is 0, expected at least 1"),
        ({"overlap": 0.0}, "appearance.overlap: is 0.0, expected above 0"),
        ({"fps": 0.0}, "appearance.fps: is 0.0, expected above 0"),
        ({"lead": -0.1}, "appearance.lead: is -0.1, expected at least 0"),
        ({"decay": 0.9}, r"appearance.decay: is 0.9, .* expected above 1 - 1 / settled \(0.916667\), at most 1"),
    ],
)
def test_rules_that_cannot_be(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Appearance(**wrong)
