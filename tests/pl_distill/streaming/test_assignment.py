import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pl_distill.streaming.assignment import Association, Thresholds, assign, one_to_one

THRESHOLDS = Thresholds(confirm=0.2, find=0.4, correct=0.3, certain=0.5)
CERTAIN = np.array([0.9, 0.9])


def associate(overlap, scores=CERTAIN, tracks=(7, 3), new=(), empty=()):
    loose = Association(list(new), [], {0: list(tracks)}, {}, list(empty))
    return one_to_one(loose, np.array(overlap), np.asarray(scores), tracks, THRESHOLDS)


def test_two_tracks_on_one_animal_are_confirmed_by_its_detection_once():
    found = associate([[0.6, 0.9]], scores=[0.9])
    assert found.matched == {0: [3]}
    assert found.unmatched == [7]
    assert found.corrections == {3: 0}


def test_neighbours_are_served_together_though_both_detections_fit_one_track_best():
    found = associate([[0.7, 0.0], [0.6, 0.5]])
    assert found.matched == {0: [7], 1: [3]}
    assert found.corrections == {7: 0, 3: 1}
    assert found.unmatched == []


@pytest.mark.parametrize(
    ("overlap", "matched", "unmatched", "corrections"),
    [
        (0.4, [7], [], {7: 0}),
        (0.39, [7], [7], {7: 0}),  # confirmed, but too loosely to count as found: it says nothing
        (0.29, [7], [7], {}),
        (0.19, [], [7], {}),
    ],
)
def test_each_threshold_at_its_border(overlap, matched, unmatched, corrections):
    found = associate([[overlap]], scores=[0.9], tracks=(7,))
    assert found == Association([], unmatched, {0: matched}, corrections, [])


def test_an_uncertain_detection_confirms_and_corrects_nothing():
    found = associate([[0.9]], scores=[0.49], tracks=(7,))
    assert (found.matched, found.corrections) == ({0: [7]}, {})


def test_a_track_without_a_mask_is_empty_not_unmatched():
    found = associate([[0.9, 0.0]], scores=[0.9], empty=[3])
    assert (found.unmatched, found.empty) == ([], [3])


def test_what_begins_a_track_is_left_to_the_model():
    assert associate([[0.9, 0.0], [0.0, 0.0]], new=[1]).new == [1]


@given(arrays(np.float64, st.tuples(st.integers(0, 5), st.integers(0, 5)), elements=st.floats(0, 1)), st.floats(0, 1))
def test_pairs_are_one_to_one_and_nobody_who_could_be_served_is_left(overlap, least):
    pairs = assign(overlap, least)
    rows, columns = {row for row, _ in pairs}, {column for _, column in pairs}
    assert len(rows) == len(columns) == len(pairs)
    assert all(overlap[pair] >= least for pair in pairs)
    left = [
        (row, column)
        for row in set(range(overlap.shape[0])) - rows
        for column in set(range(overlap.shape[1])) - columns
        if overlap[row, column] >= max(least, 1e-12)
    ]
    assert left == []
