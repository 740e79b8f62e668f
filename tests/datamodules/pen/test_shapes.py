from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.pen import Body, PenConfig, Pose
from datamodules.pen.camera import Camera
from datamodules.pen.furniture import Furniture
from datamodules.pen.motion import Motion
from datamodules.pen.shapes import shape_of

STANDING, LYING, ON_SIDE = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0)
POSE = Pose(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, STANDING, 1, 0.0, 0.0, 0.0, 0.0, 0.5, "standing")
PIG = Body("pig-01", "pig", 1.1, 1.0)
CAMERA = Camera.of(PenConfig(width=640, height=360))


def extent(outlines):
    points = np.concatenate(outlines)
    return points.max(0) - points.min(0)


def test_a_pig_that_looks_right_has_its_snout_on_the_right():
    shape = shape_of(POSE, PIG, CAMERA)
    assert shape.snout.mean(0)[0] > shape.trunk.outline.max(0)[0] > 320 > shape.tail.min(0)[0]
    assert shape.snout.mean(0)[1] == pytest.approx(179.5, abs=0.5)


def test_body_length_is_the_length_in_the_picture():
    high = replace(PenConfig(), camera_height_m=10.0)  # so high that perspective hardly matters
    shape = shape_of(POSE, PIG, Camera.of(high))
    length_px = shape.head.outline.max(0)[0] - shape.trunk.outline.min(0)[0]
    assert length_px / 100 == pytest.approx(1.1, rel=0.08)


def test_sleep_shows_legs_on_one_side_and_lying_shows_none():
    asleep = shape_of(replace(POSE, posture=ON_SIDE), PIG, CAMERA)
    awake = shape_of(replace(POSE, posture=LYING), PIG, CAMERA)
    belly = 179.5 + 1.5 * PIG.half_width_m * 100
    assert all(leg.max(0)[1] > belly for leg in asleep.legs)
    assert all(leg.max(0)[1] < belly for leg in awake.legs)
    assert len(asleep.eyes) == 1
    assert len(awake.eyes) == 2
    assert abs(asleep.trunk.roll) > 1 > abs(awake.trunk.roll)


def test_the_legs_point_to_the_side_that_the_pose_names():
    right, left = (shape_of(replace(POSE, posture=ON_SIDE, side=side), PIG, CAMERA) for side in (1, -1))
    assert np.mean([leg.mean(0)[1] for leg in right.legs]) > 179.5 > np.mean([leg.mean(0)[1] for leg in left.legs])


def test_a_sheep_is_broader_than_a_pig():
    sheep = Body("sheep-01", "sheep", 1.1, 1.0)
    wide, narrow = (extent([shape_of(POSE, body, CAMERA).trunk.outline])[1] for body in (sheep, PIG))
    assert wide > 1.3 * narrow


@given(
    x=st.floats(-2.5, 2.5),
    y=st.floats(-0.8, 0.8),
    heading=st.floats(-np.pi, np.pi),
    bend=st.floats(-0.75, 0.75),
    yaw=st.floats(-0.8, 0.8),
    low=st.floats(0, 1),
    weights=st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
    side=st.sampled_from((1, -1)),
)
def test_every_pose_gives_a_body_of_plausible_size_around_its_place(x, y, heading, bend, yaw, low, weights, side):
    posture = tuple(np.array(weights) / sum(weights))
    pose = replace(
        POSE, x=x, y=y, heading=heading, bend=bend, head_yaw=yaw, head_low=low, posture=posture, side=side, gait=heading
    )
    shape = shape_of(pose, PIG, CAMERA)
    points = np.concatenate(shape.outlines)
    assert np.isfinite(points).all()
    assert 60 < np.hypot(*extent(shape.outlines)) < 260
    assert np.hypot(*(points - CAMERA.project(np.array((x, y, 0.2))))[:].T).max() < 150


@given(heading=st.floats(-np.pi, np.pi), bend=st.floats(-0.7, 0.7), yaw=st.floats(-0.7, 0.7))
def test_the_snout_is_where_the_simulation_believes_it(heading, bend, yaw):
    pose = replace(POSE, heading=heading, bend=bend, head_yaw=yaw)
    snout = shape_of(pose, PIG, Camera.of(replace(PenConfig(), camera_height_m=10.0))).snout.mean(0)
    motion = Motion(PenConfig(), Furniture.of(PenConfig()), [PIG])
    motion.heading[0], motion.bend[0], motion.head_yaw[0] = heading, bend, yaw
    x, y = motion.noses()[0]
    assert np.hypot(*(snout - (319.5 + 100 * x, 179.5 + 100 * y))) < 16  # pixels of 1 cm
