import numpy as np

from datamodules.lies import LIE, lies_of
from datamodules.motion import MOTION, motion_of

SIZE = {"fps": 5.0, "width": 200, "height": 100}


def describe(frame, animal, boxes):
    boxes = np.array(boxes, np.float32)
    lies = lies_of(boxes).astype(np.float32)
    values = motion_of(np.array(frame, np.int32), np.array(animal, np.int32), boxes, lies, **SIZE)
    return {name: values[:, column] for column, name in enumerate(MOTION)}


def box(x, y, width=20, height=10):
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def test_a_step_of_half_a_body_a_frame_is_two_and_a_half_bodies_a_second():
    moved = describe(range(5), [0] * 5, [box(50 + 10 * n, 50) for n in range(5)])
    np.testing.assert_allclose(moved["velocity_x"], 2.5)
    np.testing.assert_allclose(moved["velocity_y"], 0)
    np.testing.assert_allclose(moved["speed"], 2.5)
    np.testing.assert_allclose(moved["slow_speed"], 2.5)
    np.testing.assert_allclose(moved["growth"], 0)


def test_frames_that_were_not_seen_count_as_time():
    moved = describe([0, 5], [0, 0], [box(50, 50), box(60, 50)])
    np.testing.assert_allclose(moved["velocity_x"], 0.5)  # half a body in a second


def test_another_animal_is_no_movement():
    moved = describe([0, 1], [0, 1], [box(50, 50), box(90, 50)])
    np.testing.assert_array_equal(moved["speed"], 0)


def test_place_and_size_are_relative_to_the_frame():
    still = describe([0], [0], [box(200, 50, 40, 10)])
    assert still["x"][0] == 1
    assert still["y"][0] == 0
    np.testing.assert_allclose(still["log_width"], np.log(40 / 200) + 2, rtol=1e-6)


def test_neighbours_of_the_same_frame_count_and_no_others():
    seen = describe([0, 1, 0, 0], [0, 0, 1, 2], [box(50, 50), box(50, 50), box(60, 50), box(190, 50)])
    np.testing.assert_allclose(seen["overlap"], (0.5, 0, 0.5, 0))
    np.testing.assert_allclose(seen["nearest"], (0.5, 5.0, 0.5, 5.0))  # of 20 pixels; five at the most


def test_nothing_gives_nothing():
    none, boxes, lies = np.zeros(0, np.int32), np.zeros((0, 4), np.float32), np.zeros((0, len(LIE)), np.float32)
    assert motion_of(none, none, boxes, lies, **SIZE).shape == (0, len(MOTION))
