import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.boxes import clip_box
from datamodules.edinburgh import read_edinburgh
from datamodules.errors import AnnotationError
from datamodules.mot import read_mot

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


class TestLabelsOfAnotherPicture:
    """12 animals on a grid of 64x48, on each of three frames, written in both layouts at some size."""

    @pytest.fixture
    def write(self, tmp_path, write_edinburgh_clip, write_mot_sequence, entry):
        def write(layout, scale_x, scale_y, shift=0):
            boxes = [
                ((4 + 16 * column + shift) * scale_x, (3 + 16 * row) * scale_y, 8 * scale_x, 10 * scale_y)
                for row in range(3)
                for column in range(4)
            ]
            if layout == "mot":
                lines = [
                    f"{frame},{number},{x + 1},{y + 1},{width},{height},1,1,1\n"
                    for frame in (1, 2, 3)
                    for number, (x, y, width, height) in enumerate(boxes)
                ]
                return write_mot_sequence(tmp_path / "a-2026-01-05", "".join(lines)) / "gt" / "gt.txt"
            entries = {str(number): [entry(step, *box) for step in range(3)] for number, box in enumerate(boxes)}
            return write_edinburgh_clip(tmp_path, objects=entries) / "output.json"

        return write

    @pytest.fixture
    def read(self, tmp_path):
        return lambda layout: (read_mot if layout == "mot" else read_edinburgh)(tmp_path)[0]

    @pytest.mark.parametrize("layout", ["edinburgh", "mot"])
    @pytest.mark.parametrize(
        ("scale", "away", "reach"),
        [((2, 2), 24, "x = 120 and y = 90"), ((0.75, 4 / 3), 12, "x = 45 and y = 60"), ((1.25, 1.25), 18, "x = 75")],
        ids=["twice as large", "of a video on its side", "a little larger"],
    )
    def test_they_are_refused_by_how_far_they_reach(self, write, read, refused, layout, scale, away, reach):
        path = write(layout, *scale)
        error = refused(
            AnnotationError,
            lambda: read(layout),
            where=path,
            found=f"has {away} of 36 boxes for the most part outside of the picture",
            expected="boxes of these pictures",
        )
        assert reach in error.found
        assert "it is 64x48" in error.found

    @pytest.mark.parametrize("layout", ["edinburgh", "mot"])
    def test_boxes_that_are_cut_by_less_than_half_are_those_of_animals_at_the_edge(self, write, read, layout, caplog):
        write(layout, 1, 1, shift=7)  # the last column ends 3 of 8 pixels outside
        assert [len(read(layout).annotations[index]) for index in range(3)] == [12, 12, 12]
        assert caplog.messages == []

    def test_few_that_are_left_out_are_told(self, tmp_path, write, read, caplog):
        path = write("edinburgh", 1, 1)
        content = json.loads(path.read_text())
        content["objects"][0]["frames"][0]["bbox"]["x"] = 64
        path.write_text(json.dumps(content))
        assert len(read("edinburgh").annotations[0]) == 11
        assert caplog.messages == [f"{path}: 1 of 36 boxes are outside of the picture and left out"]
