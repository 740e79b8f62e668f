"""What is drawn where, and in which colour."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

from datamodules.clip import Annotation
from pl_distill.evaluation.pictures import Canvas, annotate, colour_of

GREY = np.full((60, 80, 3), 90, np.uint8)


@dataclass
class Drawn:
    """Tracks of one frame."""

    ids: tuple[int, ...] = ()
    boxes_xyxy: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    masks: np.ndarray = field(default_factory=lambda: np.zeros((0, 60, 80), bool))


def truth(visible: bool) -> Annotation:
    box = np.array([(10, 10, 50, 50)], np.float32)
    return Annotation(("a",), box, (None,), np.array([visible]))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1280, 720), (1, 1280, 720)),
        ((80, 60), (8, 640, 480)),
        ((481, 481), (1, 482, 482)),
        ((479, 900), (2, 958, 1800)),
    ],
)
def test_small_frames_are_enlarged_and_sides_are_even(size, expected):
    canvas = Canvas.of(*size)
    assert (canvas.factor, canvas.width, canvas.height) == expected


def test_without_anything_to_draw_the_picture_is_the_frame():
    canvas = Canvas.of(80, 60)
    picture = annotate(GREY, Drawn(), None, canvas)
    assert picture.shape == (480, 640, 3)
    assert (picture == 90).all()
    odd = annotate(np.full((501, 601, 3), 90, np.uint8), Drawn(), None, Canvas.of(601, 501))
    assert odd.shape == (502, 602, 3)
    assert (odd[:501, :601] == 90).all()


def test_a_track_has_its_colour_on_its_box_and_outline_and_a_label():
    mask = np.zeros((1, 60, 80), bool)
    mask[0, 25:35, 30:40] = True
    tracks = Drawn((5,), np.array([(20, 20, 60, 50)], np.float32), mask)
    picture = annotate(GREY, tracks, None, Canvas.of(80, 60))
    colour = colour_of(5)
    assert tuple(picture[8 * 50, 8 * 40]) == colour  # the lower edge of the box
    near_outline = picture[8 * 25 : 8 * 35, 8 * 29 : 8 * 31]
    assert (near_outline == colour).all(axis=2).any()
    assert tuple(picture[8 * 20 + 1, 8 * 20 + 1]) == colour  # the label's plate in the upper left corner
    assert tuple(picture[8 * 30, 8 * 35]) == (90, 90, 90)  # inside of the mask: the animal stays visible


def test_truth_is_white_and_dotted_where_the_animal_is_hidden():
    canvas = Canvas.of(80, 60)
    seen, hidden = (annotate(GREY, Drawn(), truth(visible), canvas) for visible in (True, False))
    edge = (8 * 10, slice(8 * 10, 8 * 50))
    assert (seen[edge] == 255).all()
    white = (hidden[edge] == 255).all(axis=1).mean()
    assert 0.2 < white < 0.8


def test_a_label_stays_inside_the_picture():
    tracks = Drawn((123,), np.array([(78, 58, 80, 60)], np.float32), np.zeros((1, 60, 80), bool))
    picture = annotate(GREY, tracks, None, Canvas.of(80, 60), caption="a caption")
    plate = (picture[400:, 500:] == colour_of(123)).all(axis=2)
    assert plate.sum() > 300
    assert (picture[460:, :100] == 255).all(axis=2).sum() > 300  # the caption, lower left


def test_an_identity_keeps_its_colour_and_neighbours_differ():
    colours = [colour_of(identity) for identity in range(20)]
    assert colours == [colour_of(identity) for identity in range(20)]
    distances = [np.abs(np.subtract(one, other)).sum() for one, other in pairwise(colours)]
    assert min(distances) > 60


def test_a_track_is_labelled_with_what_the_caller_wants():
    tracks = Drawn((5,), np.array([(20, 20, 60, 50)], np.float32), np.zeros((1, 60, 80), bool))
    plates = []
    for labels in (None, ["5"], ["5 0.93"]):
        picture = annotate(GREY, tracks, None, Canvas.of(80, 60), labels=labels)
        plates.append(int((picture == colour_of(5)).all(axis=2).sum()))
    assert plates[0] == plates[1]
    assert plates[2] > plates[1] + 200  # a longer plate
