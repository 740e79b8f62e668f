import math

import numpy as np
import pytest

from pl_distill.evaluation.average_precision import BoxScores, average_precisions


def test_rankings_by_hand():
    likeness = np.array([[0.9, 0.8, 0.7, 0.6]])
    right = np.array([[True, False, True, False]])
    assert average_precisions(likeness, right) == pytest.approx([(1 / 1 + 2 / 3) / 2])


def test_by_hand():
    """Two pictures, two objects each: hits at 0.9 and 0.6, a miss at 0.8, a double at 0.5; two are never found."""
    scores = BoxScores()
    pairs = scores.add(np.array([0.8, 0.9, 0.5]), np.array([[0.1, 0.2], [0.9, 0.0], [0.8, 0.0]]))
    assert pairs == [(1, 0)]
    assert scores.add(np.array([0.6]), np.array([[0.1, 0.7]])) == [(0, 1)]
    # in order of score: hit, miss, hit, miss; precision at the hits 1 and 2/3
    assert scores.average_precision() == pytest.approx(100 * (1 + 2 / 3) / 4)
    assert scores.precision_recall(0.55) == (pytest.approx(200 / 3), pytest.approx(50))
    assert scores.precision_recall(0.95) == (100.0, 0.0)


def test_pictures_of_several_ranks_are_scored_as_if_one_had_seen_all():
    pictures = [
        (np.array([0.8, 0.9, 0.5]), np.array([[0.1, 0.2], [0.9, 0.0], [0.8, 0.0]])),
        (np.array([0.6]), np.array([[0.1, 0.7]])),
        (np.zeros(0), np.zeros((0, 3))),
    ]
    whole, parts = BoxScores(), [BoxScores(), BoxScores(), BoxScores()]
    for part, picture in zip(parts, pictures, strict=True):
        whole.add(*picture)
        part.add(*picture)
    joined = BoxScores.join(parts)
    assert joined.objects == 7
    assert joined.average_precision() == whole.average_precision()
    assert joined.precision_recall(0.55) == whole.precision_recall(0.55)
    assert joined.average_precision() != pytest.approx(np.mean([part.average_precision() for part in parts]))


def test_the_best_detection_of_an_object_counts_not_the_first():
    scores = BoxScores()
    assert scores.add(np.array([0.3, 0.7]), np.array([[1.0], [0.6]])) == [(1, 0)]


def test_precision_is_taken_from_the_right():
    """A miss with the highest score lowers precision at the first hit, but later hits may raise it again."""
    scores = BoxScores()
    scores.add(np.array([0.9, 0.8, 0.7]), np.array([[0, 0], [1, 0], [0, 1]], float))
    assert scores.average_precision() == pytest.approx(100 * 2 / 3)


def test_nothing_to_find_is_no_number_and_nothing_found_is_zero():
    empty = BoxScores()
    empty.add(np.array([0.4]), np.zeros((1, 0)))
    assert math.isnan(empty.average_precision())
    missed = BoxScores()
    missed.add(np.zeros(0), np.zeros((0, 3)))
    assert missed.average_precision() == 0
    assert missed.precision_recall(0.5) == (100.0, 0.0)
