import numpy as np
import pytest

from pl_distill.errors import ConfigError
from pl_distill.reid.matching import MatchPolicy, calibrate, match_frame

POLICY = MatchPolicy(threshold=0.5, margin=0.1)


def decide(scores, policy=POLICY, **options):
    scores = np.array(scores, np.float32)
    names = "abcdef"[: scores.shape[1]]
    return [(match.verdict, match.animal) for match in match_frame(scores, names, policy, **options)]


def test_above_threshold_and_margin_is_known_below_is_new_between_is_unsure():
    assert decide([[0.9, 0.2]]) == [("known", "a")]
    assert decide([[0.4, 0.2]]) == [("new", None)]
    assert decide([[0.9, 0.85]]) == [("unsure", "a")]


def test_two_tracks_of_a_frame_never_become_one_animal():
    # Alone each would be a; together the better assignment is a for the second and b for the first.
    assert decide([[0.90, 0.80], [0.95, 0.30]]) == [("known", "b"), ("known", "a")]
    assert decide([[0.90], [0.95]]) == [("new", None), ("known", "a")]


def test_an_animal_that_another_track_holds_is_not_free():
    assert decide([[0.9, 0.7]], taken={"a"}) == [("known", "b")]
    assert decide([[0.4]], taken={"a"}) == [("new", None)]


def test_who_looks_like_an_animal_that_another_track_holds_may_be_its_second_mask():
    assert decide([[0.9]], taken={"a"}) == [("unsure", None)]
    assert decide([[0.9, 0.4]], taken={"a"}) == [("unsure", None)]


def test_a_rival_that_another_track_has_taken_does_not_make_unsure():
    assert decide([[0.90, 0.88], [0.2, 0.99]])[0] == ("known", "a")


def test_two_tracks_that_could_as_well_change_places_are_both_unsure():
    assert decide([[0.90, 0.89], [0.89, 0.90]]) == [("unsure", "a"), ("unsure", "b")]
    (first, second) = match_frame(np.array([[0.90, 0.89], [0.80, 0.90]]), "ab", POLICY)
    assert (first.verdict, second.verdict) == ("known", "known")
    # The other way round they would have 0.89 and 0.80; the first as b and the second as a new one 0.89 and 0.5.
    assert first.margin == pytest.approx(1.80 - 1.69)


def test_a_complete_herd_gets_no_new_animal():
    herd = MatchPolicy(threshold=0.5, margin=0.1, herd=2)
    assert decide([[0.4, 0.1]], herd) == [("known", "a")]
    assert decide([[0.4, 0.1], [0.1, 0.4], [0.3, 0.3]], herd)[2] == ("unsure", None)
    assert decide([[0.4, 0.1]], herd, taken={"a", "b"}) == [("unsure", None)]


def test_no_animals_yet_means_that_everyone_is_new():
    assert decide(np.zeros((2, 0))) == [("new", None), ("new", None)]


def test_calibration_finds_the_gap_between_own_and_foreign_scores():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 400)
    scores = rng.uniform(0.0, 0.4, (400, 5)).astype(np.float32)
    scores[np.arange(400), truth] = rng.uniform(0.6, 1.0, 400)
    found = calibrate(scores, truth)
    assert 0.38 < found.policy.threshold <= 0.62
    assert (found.right, found.false_new, found.wrong, found.false_merge) == pytest.approx((100, 0, 0, 0), abs=1.0)


def test_calibration_with_scores_that_say_nothing_is_honest():
    rng = np.random.default_rng(0)
    scores, truth = rng.uniform(0, 1, (400, 5)).astype(np.float32), rng.integers(0, 5, 400)
    found = calibrate(scores, truth)
    assert found.right < 40


def test_calibration_without_enough_animals_is_refused():
    with pytest.raises(ConfigError, match="3 animals or more"):
        calibrate(np.zeros((4, 2), np.float32), np.zeros(4, int))
