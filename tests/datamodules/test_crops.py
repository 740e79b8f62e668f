import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.crops import BLANK, crop_animals, croppable
from datamodules.errors import DataError

GREY = np.full((60, 80, 3), 90, np.uint8)


def striped(angle_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """A bar 60 x 16, red at one end and blue at the other, turned clockwise in a picture of 120 x 120."""
    bar, mask = np.full((120, 120, 3), 90, np.uint8), np.zeros((120, 120), np.uint8)
    bar[52:68, 30:60], bar[52:68, 60:90], mask[52:68, 30:90] = (200, 0, 0), (0, 0, 200), 255
    turn = cv2.getRotationMatrix2D((59.5, 59.5), -angle_deg, 1)
    turned = cv2.warpAffine(bar, turn, (120, 120), borderValue=(90, 90, 90))
    return turned, cv2.warpAffine(mask, turn, (120, 120)) > 127


def box_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)


def test_a_square_crop_of_its_own_size_is_the_picture_itself():
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    crop = crop_animals(frame, np.array([[10, 20, 26, 36]], np.float32), margin=0, size=16)
    np.testing.assert_array_equal(crop[0].permute(1, 2, 0).numpy(), frame[20:36, 10:26])


def test_a_long_box_keeps_its_proportions_and_its_middle():
    frame = GREY.copy()
    frame[30:34, 20:60] = (200, 0, 0)
    crop = crop_animals(frame, np.array([[20, 30, 60, 34]], np.float32), margin=0, size=40)[0]
    np.testing.assert_array_equal(np.flatnonzero((crop[0] == 200).any(1).numpy()), np.arange(18, 22))


def test_what_lies_beyond_the_frame_is_blank():
    crop = crop_animals(GREY, np.array([[-10, 0, 10, 20]], np.float32), margin=0, size=20)[0].numpy()
    np.testing.assert_array_equal(crop[:, 5, 5], BLANK)
    np.testing.assert_array_equal(crop[:, 5, 15], (90, 90, 90))


@pytest.mark.parametrize(("share", "outside"), [(0.0, 90), (True, 124), (0.5, 107)])
def test_the_background_fades_and_the_animal_stays(share, outside):
    mask = np.zeros((1, 60, 80), bool)
    mask[0, 10:20, 10:20] = True
    crop = crop_animals(GREY, np.array([[10, 10, 30, 30]], np.float32), mask, 0, share, 20)[0].numpy()
    assert crop[0, 5, 5] == 90
    assert crop[0, 15, 15] == outside


@pytest.mark.parametrize("angle", [0, 20, 45, 90, 100, 160])
def test_an_aligned_animal_lies_level_whatever_its_direction(angle):
    frame, mask = striped(angle)
    crop = crop_animals(frame, box_of(mask), mask[None], 0, 1.0, 60, align=True)[0].numpy().astype(int)
    middle, above = crop[:, 30], crop[:, 12]
    np.testing.assert_allclose(above.T, np.tile(BLANK, (60, 1)), atol=3)
    ends = {"red": (200, 0, 0), "blue": (0, 0, 200)}
    found = [[name for name, colour in ends.items() if np.abs(middle[:, at] - colour).max() < 40] for at in (12, 48)]
    assert sorted(found) == [["blue"], ["red"]]


def test_without_masks_nothing_is_aligned():
    frame, mask = striped(45)
    plain = crop_animals(frame, box_of(mask), None, 0.1, 0, 40)
    assert (crop_animals(frame, box_of(mask), None, 0.1, 1.0, 40, align=True) == plain).all()


def test_the_longest_of_a_round_shape_is_no_direction():
    mask = np.zeros((60, 80), np.uint8)
    cv2.circle(mask, (40, 30), 12, 1, -1)
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    box = box_of(mask)
    aligned = crop_animals(frame, box, mask.astype(bool)[None], 0, 0, 25, align=True)
    assert (aligned == crop_animals(frame, box, None, 0, 0, 25)).all()


@pytest.mark.parametrize(
    "box",
    [(100, 10, 120, 20), (10, 10, 10, 20), (-20, 5, 0, 15), (10, 10, float("nan"), 20), (79.5, 3, 90, 30)],
    ids=["outside", "no width", "touching the border", "not a number", "half a pixel inside"],
)
def test_a_box_that_shows_nothing_is_named_and_can_be_found_before(box):
    boxes = np.array([(10, 10, 30, 30), box], np.float32)
    np.testing.assert_array_equal(croppable(boxes, (60, 80)), (True, False))
    with pytest.raises(DataError, match=r"box 1 .* shows nothing of a frame of 80 x 60"):
        crop_animals(GREY, boxes)


def test_a_mask_without_a_pixel_is_refused_only_where_masks_are_used():
    boxes, masks = np.array([(10, 10, 30, 30)], np.float32), np.zeros((1, 60, 80), bool)
    assert crop_animals(GREY, boxes, masks).shape == (1, 3, 224, 224)
    with pytest.raises(DataError, match="box 0"):
        crop_animals(GREY, boxes, masks, blank_background=1.0)


def test_no_animals_give_no_crops():
    assert crop_animals(GREY, np.zeros((0, 4), np.float32), size=32).shape == (0, 3, 32, 32)


@settings(max_examples=60)
@given(
    corner=st.tuples(st.floats(-30, 100), st.floats(-30, 80)),
    side=st.tuples(st.floats(0.1, 120), st.floats(0.1, 120)),
    size=st.integers(8, 40),
)
def test_whatever_is_croppable_can_be_cut_out(corner, side, size):
    box = np.array([(*corner, corner[0] + side[0], corner[1] + side[1])], np.float32)
    mask = np.ones((1, 60, 80), bool)
    if croppable(box, (60, 80), mask)[0]:
        for align in (False, True):
            assert crop_animals(GREY, box, mask, 0.1, 0.5, size, align=align).shape == (1, 3, size, size)
