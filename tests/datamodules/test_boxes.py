from hypothesis import given
from hypothesis import strategies as st

from datamodules.boxes import clip_box

sides = st.floats(0.01, 3000)
edges = st.floats(-3000, 3000)


def test_a_box_inside_is_kept_and_one_across_the_corner_is_cut():
    assert clip_box(1, 2, 3, 4, width=64, height=48) == (1, 2, 4, 6)
    assert clip_box(-5, 40, 10, 20, width=64, height=48) == (0, 40, 5, 48)
    assert clip_box(-10, -10, 100, 100, width=64, height=48) == (0, 0, 64, 48)


def test_a_box_that_only_touches_the_edge_is_outside():
    assert clip_box(64, 0, 5, 5, width=64, height=48) is None
    assert clip_box(-5, 0, 5, 5, width=64, height=48) is None
    assert clip_box(0, 48, 5, 5, width=64, height=48) is None


def test_a_sliver_that_single_precision_does_not_hold_is_outside():
    assert clip_box(1279.99998, 1, 10, 10, width=1280, height=720) is None


@given(edges, edges, sides, sides)
def test_what_is_left_lies_in_the_picture_and_in_the_box(left, top, width, height):
    box = clip_box(left, top, width, height, width=1280, height=720)
    if box is None:
        assert left > 1279.999 or top > 719.999 or left + width < 1e-3 or top + height < 1e-3
    else:
        assert 0 <= box[0] < box[2] <= 1280
        assert 0 <= box[1] < box[3] <= 720
        assert box[0] >= left
        assert box[1] >= top
        assert box[2] <= left + width
        assert box[3] <= top + height
