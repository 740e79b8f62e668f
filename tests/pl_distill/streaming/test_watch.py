import logging

import numpy as np
import pytest

from pl_distill.streaming.watch import CameraWatch


def picture(height=48, width=64):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


@pytest.fixture
def messages(caplog):
    caplog.set_level(logging.INFO, logger="pl_distill.streaming.watch")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_steady_camera_says_nothing(messages):
    watch = CameraWatch()
    assert all(watch.look(picture(), index / 6) for index in range(20))
    assert messages() == []


def test_a_pause_and_a_clock_that_goes_back_are_logged(messages):
    watch = CameraWatch()
    for second in (0, 1, 61, 60.5):
        assert watch.look(picture(), second)
    assert messages() == ["at 61.000 s: no frames for 60.000 s", "at 60.500 s: the clock went back by 0.500 s"]


def test_a_slow_camera_is_not_a_broken_one(messages):
    watch = CameraWatch()
    for second in (0, 5, 10, 15.5, 20, 90, 95):
        watch.look(picture(), second)
    assert messages() == ["at 5.000 s: no frames for 5.000 s", "at 90.000 s: no frames for 70.000 s"]


def test_a_blank_spell_is_logged_when_it_begins_and_when_it_ends(messages):
    watch, black = CameraWatch(), np.zeros((48, 64, 3), np.uint8)
    blue = black + np.array([0, 0, 200], np.uint8)
    shown = [watch.look(one, index / 6) for index, one in enumerate([picture(), black, blue, black, picture()])]
    assert shown == [True, False, False, False, True]
    assert messages() == [
        "at 0.167 s: the picture is blank",
        "at 0.667 s: the picture is back after 3 blank frames",
    ]


def test_a_new_size_is_logged(messages):
    watch = CameraWatch()
    watch.look(picture(), 0)
    assert watch.look(picture(30, 40), 1)
    assert messages() == ["at 1.000 s: frames are now 40 x 30, not 64 x 48"]
