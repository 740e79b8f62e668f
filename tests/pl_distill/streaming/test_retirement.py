import pytest

from pl_distill.errors import ConfigError
from pl_distill.streaming import PruningPolicy, Retirement
from pl_distill.streaming.retirement import TrackLives
from pl_distill.streaming.sam3_stream import Evidence

RULES = Retirement(probation_frames=4, probation_misses=2, unmatched_frames=3, hidden_frames=2, empty_frames=5)


def evidence(code: str) -> Evidence:
    """For track 0: m matched, u unmatched, b both, e empty, - nothing."""
    track = frozenset({0})
    return Evidence(
        matched=track if code in "mb" else frozenset(),
        unmatched=track if code in "ub" else frozenset(),
        empty=track if code == "e" else frozenset(),
    )


def end_of(life: str, rules: Retirement = RULES) -> int | None:
    lives = TrackLives(rules)
    for frame, code in enumerate(life):
        if lives.observe([0], evidence(code)):
            return frame
    return None


def shown(life: str, rules: Retirement = RULES) -> str:
    """One character for each frame: + where track 0 is shown, . where it is hidden."""
    lives = TrackLives(rules)
    return "".join("." if lives.observe([0], evidence(code)) or lives.hidden() else "+" for code in life)


@pytest.mark.parametrize(
    ("life", "end"),
    [
        ("-mmmmmmmm", None),
        ("-umu", 3),  # twice unmatched while young, not in a row
        ("-ummu", None),  # the fifth frame is after probation
        ("-mmmuuu", 6),
        ("-mmmuumumu", None),  # unmatched outnumber matched by two at most
        ("-mmmuumuu", 8),
        ("-mmmbbbbbb", None),  # a weak match neither confirms nor denies
        ("-mmmeeeee", 8),
        ("-mmmeeeemeeee", None),  # seen again in between
    ],
)
def test_a_track_ends_by_the_rule(life, end):
    assert end_of(life) == end


def test_zero_switches_a_limit_off():
    never = Retirement(probation_misses=0, unmatched_frames=0, hidden_frames=0, empty_frames=0)
    assert end_of("-" + "u" * 50 + "e" * 500, never) is None
    assert shown("-" + "u" * 50, never) == "+" * 51


@pytest.mark.parametrize(
    ("life", "seen"),
    [
        ("-mmmuum", "+++++.+"),  # hidden by the second frame without a detection, back with the next one
        ("-mmmumumu", "+++++++++"),  # never twice in a row
        ("-mmmuub", "+++++.+"),  # a weak match, too, shows that there is an animal
        ("-mmmueu", "++++++."),  # a frame without a mask does not
        ("-mmmee", "++++++"),  # there is nothing to hide
    ],
)
def test_a_track_is_hidden_while_nothing_confirms_it(life, seen):
    assert shown(life) == seen


def test_a_track_is_forgotten_when_it_is_gone():
    lives = TrackLives(RULES)
    for code in "-u":
        lives.observe([0], evidence(code))
    lives.observe([], Evidence())
    assert lives.observe([0], evidence("u")) == {}


def test_every_ended_track_has_a_reason():
    lives = TrackLives(RULES)
    both = Evidence(unmatched=frozenset({1}), empty=frozenset({2}))
    lives.observe([1, 2], Evidence())
    lives.observe([1, 2], both)
    assert lives.observe([1, 2], both) == {1: "no detection that fits in 2 of its first 3 frames"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "exakt"}, "policy.mode: is 'exakt', expected exact, bounded or none"),
        ({"max_objects": 0}, "policy.max_objects: is 0, expected at least 1"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        PruningPolicy(**arguments)


def test_a_negative_limit_is_refused():
    with pytest.raises(ConfigError, match=r"retirement\.empty_frames: is -1, expected at least 0"):
        Retirement(empty_frames=-1)
