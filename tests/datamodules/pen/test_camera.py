from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.pen import PenConfig
from datamodules.pen.camera import Camera


def test_the_floor_is_as_wide_as_promised():
    camera = Camera.of(PenConfig(width=640, height=360, view_width_m=6.4))
    pixels = camera.project(np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (-3.2, 0, 0)]))
    assert pixels == pytest.approx(np.array([(319.5, 179.5), (419.5, 179.5), (319.5, 279.5), (-0.5, 179.5)]))


def test_what_is_higher_looks_larger():
    camera = Camera.of(PenConfig(camera_height_m=3.5))
    low, high = camera.project(np.array([(1, 0, 0), (1, 0, 1.75)])) - camera.project(np.zeros(3))
    assert high[0] == pytest.approx(2 * low[0])


@given(x=st.floats(-2, 2), y=st.floats(-0.9, 0.9), z=st.floats(0, 0.6), tilt=st.floats(-30, 30))
def test_pixels_lead_back_to_the_floor(x, y, z, tilt):
    camera = Camera.of(replace(PenConfig(), camera_tilt_deg=tilt))
    pixel = camera.project(np.array((x, y, z)))
    assert camera.floor_at(x, y, z) @ (*pixel, 1) == pytest.approx((x, y), abs=1e-6)
