"""Masks there and back, and overlaps small enough to count cells."""

import numpy as np
import pytest

from datamodules.clip import Annotation
from datamodules.errors import AnnotationError
from datamodules.masks import decode_masks, encode_mask
from pl_distill.evaluation.mask_files import MaskOverlap, masks_of_truth, measure_overlap, read_masks, write_masks


def strip(left: int, right: int) -> np.ndarray:
    """A mask of 4 x 10 cells that holds the columns from `left` to before `right`."""
    mask = np.zeros((4, 10), bool)
    mask[:, left:right] = True
    return mask


def rle(*strips: tuple[int, int]):
    return [encode_mask(strip(*columns)) for columns in strips]


def test_masks_come_back_from_their_file(tmp_path):
    path = tmp_path / "masks.txt"
    with path.open("w") as file:
        write_masks(file, 0, (7, 3), np.array([strip(0, 4), strip(6, 9)]))
        write_masks(file, 1, (), np.zeros((0, 4, 10), bool))
        write_masks(file, 4, (3,), np.array([strip(0, 0)]))
    assert path.read_text().splitlines()[0].startswith("1 7 1 4 10 ")
    read = read_masks(path)
    assert sorted(read) == [0, 4]
    np.testing.assert_array_equal(decode_masks(read[0]), [strip(0, 4), strip(6, 9)])
    assert not decode_masks(read[4]).any()


@pytest.mark.parametrize("line", ["1 2 1 4 10", "one 2 1 4 10 abc", "1 2 1 4 10 a b"])
def test_a_damaged_line_is_named(tmp_path, line):
    (tmp_path / "masks.txt").write_text(f"1 2 1 4 10 0\n{line}\n")
    with pytest.raises(AnnotationError, match=r"masks.txt, line 2"):
        read_masks(tmp_path / "masks.txt")


def test_overlap_is_the_mean_over_animals_and_a_missed_one_counts_zero():
    truth = {0: rle((0, 4), (6, 10)), 1: rle((0, 4))}
    found = {0: rle((7, 9), (0, 4)), 1: []}  # 2 of 4 columns; all; nothing
    overlap = measure_overlap(truth, found, range(2))
    assert overlap == MaskOverlap(1.5, 3, 1.5, 2)
    assert overlap.percentage == 50
    assert overlap.matched_percentage == 75


def test_less_than_half_is_an_overlap_but_no_match():
    overlap = measure_overlap({0: rle((0, 5))}, {0: rle((3, 5))}, [0])
    assert (overlap.percentage, overlap.matched_percentage) == (pytest.approx(40), None)


def test_one_mask_serves_one_animal():
    truth = {0: rle((0, 4), (2, 6))}
    assert measure_overlap(truth, {0: rle((0, 6))}, [0]).total == pytest.approx(4 / 6)
    # The pairing with the largest sum: giving the first its perfect cover leaves the second with nothing.
    assert measure_overlap(truth, {0: rle((0, 4), (8, 10))}, [0]).total == pytest.approx(1)


def test_masks_beyond_the_animals_cost_nothing_here_and_frames_outside_are_passed_over():
    truth = {0: rle((0, 4)), 9: rle((0, 4))}
    assert measure_overlap(truth, {0: rle((0, 4), (5, 9))}, [0]) == MaskOverlap(1.0, 1, 1.0, 1)
    assert measure_overlap({}, {0: rle((0, 4))}, [0]).percentage is None


def test_counts_of_clips_are_pooled():
    both = MaskOverlap(1.0, 1, 1.0, 1) + MaskOverlap(1.2, 3, 0.8, 1)
    assert (both.percentage, both.matched_percentage) == (pytest.approx(55), pytest.approx(90))


def test_truth_leaves_out_hidden_animals_and_frames_without_masks():
    boxes, visible = np.array([(0, 0, 4, 4), (6, 0, 10, 4)], np.float32), np.array([True, False])
    with_masks = Annotation(("a", "b"), boxes, (None, None), visible, tuple(rle((0, 4), (6, 10))))
    without = Annotation(("a", "b"), boxes, (None, None), visible)
    assert masks_of_truth({0: with_masks, 1: without, 5: with_masks}, frames=5) == {0: rle((0, 4))}


def test_whatever_a_tracker_says_agrees_wholly_with_itself():
    """Also where a surer animal has taken every pixel of another, whose empty mask stays in the file."""
    said = {0: rle((0, 4), (6, 6)), 1: rle((3, 3))}
    assert measure_overlap(said, said, range(2)) == MaskOverlap(1.0, 1, 1.0, 1)
