import cv2
import numpy as np
import pytest

from datamodules.lies import LIE, lies_of


def drop(angle_deg: float) -> np.ndarray:
    """A body 60 long and 30 wide that is slimmer at its front end, which points `angle_deg` clockwise."""
    mask = np.zeros((120, 140), np.uint8)
    outline = np.array([(-30, -15), (0, -15), (30, -4), (30, 4), (0, 15), (-30, 15)], np.float64)
    angle = np.radians(angle_deg)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    cv2.fillPoly(mask, [np.rint(outline @ turn.T + (70, 60)).astype(np.int32)], 1)
    return mask.astype(bool)


def box_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)


def lie_of(boxes, masks=None) -> dict[str, float]:
    return dict(zip(LIE, lies_of(boxes, masks)[0].tolist(), strict=True))


@pytest.mark.parametrize("angle", [0, 30, 90, 135, 200, 300])
def test_a_mask_lies_towards_its_slimmer_end(angle):
    mask = drop(angle)
    lie = lie_of(box_of(mask), mask[None])
    assert np.cos(lie["angle"] - np.radians(angle)) > np.cos(np.radians(2))
    assert (lie["length"], lie["width"]) == (pytest.approx(60, abs=3), pytest.approx(30, abs=3))
    assert (lie["x"], lie["y"]) == (pytest.approx(70.5, abs=2), pytest.approx(60.5, abs=2))
    assert lie["slimness"] > 0.1


def test_a_rectangle_has_no_slimmer_end_and_a_round_shape_lies_level():
    mask = np.zeros((60, 80), np.uint8)
    mask[20:30, 10:50] = 1
    assert lie_of(box_of(mask), mask.astype(bool)[None])["slimness"] == pytest.approx(0, abs=1e-9)
    mask[:] = 0
    cv2.circle(mask, (40, 30), 12, 1, -1)
    assert lie_of(box_of(mask), mask.astype(bool)[None])["angle"] == 0


@pytest.mark.parametrize(("box", "angle"), [((10, 20, 50, 30), 0), ((10, 20, 20, 60), np.pi / 2)])
def test_a_box_lies_along_its_longer_side(box, angle):
    lie = lie_of(np.array([box], np.float32))
    assert lie == {
        "x": (box[0] + box[2]) / 2,
        "y": (box[1] + box[3]) / 2,
        "length": 40,
        "width": 10,
        "angle": angle,
        "slimness": 0,
    }


def test_nobody_lies_nowhere():
    assert lies_of(np.zeros((0, 4), np.float32)).shape == (0, len(LIE))
