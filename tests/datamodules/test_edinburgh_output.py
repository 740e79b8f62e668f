"""Labels of the Edinburgh Pig Behaviour data set with the traps of real files."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.edinburgh import read_edinburgh
from datamodules.edinburgh_output import BEHAVIOURS, read_output
from datamodules.errors import AnnotationError
from datamodules.video import VideoInfo

VIDEO = VideoInfo(width=64, height=48, fps=6.0, num_frames=100)


@pytest.fixture
def read_objects(tmp_path):
    """Read an output.json that holds these objects."""

    def read(objects, video=VIDEO, step_s=1 / 6, **extra):
        path = tmp_path / "output.json"
        pairs = objects.items() if isinstance(objects, dict) else objects
        content = {"stepSize": step_s, "objects": [{"id": name, "frames": frames} for name, frames in pairs], **extra}
        path.write_text(json.dumps(content))
        return read_output(path, video)

    return read


class TestSteps:
    @pytest.mark.parametrize(
        ("fps", "step_s", "k"),
        [(30.0, 0.1, 3), (18.0, 0.16666666666666666, 3), (6.0, 1 / 6, 1), (6.0, 0.5, 3), (30000 / 1001, 0.1, 3)],
    )
    def test_frame_numbers_count_steps_of_k_video_frames_with_k_from_the_video(
        self, read_objects, entry, fps, step_s, k
    ):
        annotations = read_objects({"1": [entry(0), entry(33)]}, VideoInfo(64, 48, fps, 100), step_s)
        assert list(annotations) == [0, 33 * k]

    def test_k_is_taken_from_the_file_itself_and_not_from_one_rate_for_all(self, tmp_path, write_edinburgh_clip, entry):
        write_edinburgh_clip(tmp_path, "2019_11_05/000002", objects={"1": [entry(3)]}, frames=12, fps=30.0, step_s=0.1)
        write_edinburgh_clip(tmp_path, "2019_11_05/000009", objects={"1": [entry(3)]}, frames=12)
        fast, slow = read_edinburgh(tmp_path)
        assert list(fast.annotations) == [9]
        assert list(slow.annotations) == [3]

    def test_labels_do_not_drift_where_a_step_is_not_quite_whole(self, read_objects, entry):
        video = VideoInfo(64, 48, 24.97, 3000)
        assert list(read_objects({"1": [entry(1), entry(119)]}, video, 1.0)) == [25, 2971]  # 119 s, not 119 x 25 frames

    def test_two_steps_on_one_frame_are_refused(self, read_objects, entry, refused):
        objects = {"1": [entry(12), entry(13)]}  # frames 11.52 and 12.48
        refused(
            AnnotationError, lambda: read_objects(objects, VideoInfo(64, 48, 24.0, 100), 0.04), found="0.960 frames"
        )

    def test_the_step_may_stand_in_the_config_only(self, read_objects, entry):
        assert list(read_objects({"1": [entry(2)]}, step_s=None, config={"stepSize": 0.5})) == [6]

    def test_a_step_of_half_frames_is_refused(self, read_objects, entry, tmp_path, refused):
        error = refused(
            AnnotationError,
            lambda: read_objects({"1": [entry(0)]}, VideoInfo(64, 48, 25.0, 100), 0.1),
            where=tmp_path / "output.json",
            expected="a whole number of frames",
            fix="Use the color.mp4 that was labelled",
        )
        assert "25 frames per second" in error.found
        assert "2.500 frames" in error.found

    @pytest.mark.parametrize("step_s", [None, 0, -0.1, "0.1", True, float("nan"), 1e-9])
    def test_an_impossible_step_is_refused(self, read_objects, entry, refused, step_s):
        refused(AnnotationError, lambda: read_objects({"1": [entry(0)]}, step_s=step_s), found="has stepSize")

    def test_the_last_frame_of_the_video_may_be_labelled(self, read_objects, entry):
        assert list(read_objects({"1": [entry(33)]}, VideoInfo(64, 48, 30.0, 100), 0.1)) == [99]

    def test_a_frame_number_beyond_the_video_refuses_the_clip(self, tmp_path, write_edinburgh_clip, entry, refused):
        objects = {"7": [entry(0)], "179": [entry(2), entry(4)]}
        folder = write_edinburgh_clip(tmp_path, objects=objects, frames=12, fps=18.0)
        error = refused(
            AnnotationError,
            lambda: read_edinburgh(tmp_path),
            where=folder / "output.json",
            found="labels frameNumber 4 (of object '179'), which is video frame 4 * 3 = 12",
            expected="a frame below 12, the length of the video",
            fix="put the right color.mp4 beside this file",
        )
        assert "\n" not in str(error)

    @pytest.mark.parametrize("number", [-1, 1.5, "3", None, True, float("inf")])
    def test_a_frame_number_that_is_none_is_refused(self, read_objects, entry, refused, number):
        error = refused(
            AnnotationError, lambda: read_objects({"31": [entry(number)]}), expected="a whole number from 0"
        )
        assert f"object '31' has frameNumber {number!r}" in error.found

    def test_a_frame_number_written_as_a_float_is_read(self, read_objects, entry):
        assert list(read_objects({"1": [entry(3.0)]})) == [3]


class TestObjects:
    def test_ids_are_strings_and_numbers_become_strings(self, read_objects, entry):
        assert read_objects([("179", [entry(0)]), (12, [entry(0)])])[0].identities == ("179", "12")

    @pytest.mark.parametrize("name", [None, 1.5, True, ["1"]])
    def test_an_object_without_a_usable_id_is_refused(self, read_objects, entry, refused, name):
        refused(AnnotationError, lambda: read_objects([("1", []), (name, [entry(0)])]), found="object number 1 has id")

    def test_an_empty_list_of_objects_is_an_unlabelled_clip(self, read_objects):
        assert read_objects({}) == {}
        assert read_objects({"1": [], "2": []}) == {}

    def test_gaps_are_unlabelled_frames_and_not_frames_without_animals(self, read_objects, entry):
        annotations = read_objects({"1": [entry(0), entry(90)], "2": [entry(0)]})
        assert {index: animals.identities for index, animals in annotations.items()} == {0: ("1", "2"), 90: ("1",)}

    def test_nine_objects_in_a_pen_of_eight_are_nine_animals_and_one_may_have_a_single_frame(self, read_objects, entry):
        objects = {str(name): [entry(0, x=name), entry(1, x=name)] for name in range(8)} | {"8": [entry(1)]}
        annotations = read_objects(objects)
        assert [len(annotations[index]) for index in (0, 1)] == [8, 9]

    def test_all_sixteen_labels_are_known_and_a_missing_one_is_none(self, read_objects, entry):
        assert len(set(BEHAVIOURS)) == 16
        objects = {label: [entry(0, behaviour=label)] for label in BEHAVIOURS}
        objects |= {"a": [entry(0)], "b": [entry(0, behaviour=None)], "c": [entry(0, behaviour="")]}
        assert read_objects(objects)[0].behaviours == (*BEHAVIOURS, None, None, None)

    @pytest.mark.parametrize("label", ["walking", "Walk", 3, ["walk"]])
    def test_an_unknown_label_is_refused(self, read_objects, entry, tmp_path, refused, label):
        refused(
            AnnotationError,
            lambda: read_objects({"179": [entry(0), entry(41, behaviour=label)]}),
            where=f"{tmp_path / 'output.json'}, object '179', frameNumber 41",
            found=f"has behaviour {label!r}",
            expected="one of investigating, walk, standing",
            fix="Correct the spelling",
        )

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            *[(True, True), (1, True), ("1", True), ("true", True), (None, True), ("", True), (..., True)],
            *[(False, False), (0, False), ("0", False), ("False", False)],
        ],
    )
    def test_booleans_are_read_as_they_occur(self, read_objects, entry, value, expected):
        assert read_objects({"1": [entry(0, visible=value)]})[0].visible.tolist() == [expected]

    @pytest.mark.parametrize("value", ["yes", 2, [], 1.5])
    @pytest.mark.parametrize("key", ["visible", "isGroundTruth"])
    def test_other_booleans_are_refused(self, read_objects, entry, refused, key, value):
        refused(
            AnnotationError,
            lambda: read_objects({"1": [entry(0, **{key: value})]}),
            where="object '1', frameNumber 0",
            found=f"has {key} {value!r}",
            expected="true, false, 1 or 0",
        )


class TestDuplicates:
    def kept(self, read_objects, *entries):
        (animals,) = read_objects([("1", list(entries))]).values()
        assert animals.identities == ("1",)
        return animals

    def test_one_box_per_animal_and_frame_the_later_one(self, read_objects, entry):
        animals = self.kept(read_objects, entry(0, x=1, behaviour="walk"), entry(0, x=2, behaviour="run"))
        assert animals.behaviours == ("run",)
        assert animals.boxes_xyxy[0, 0] == 2

    def test_ground_truth_wins_over_what_was_interpolated_wherever_it_stands(self, read_objects, entry):
        truth, guess = entry(0, x=1, isGroundTruth="1"), entry(0, x=2, isGroundTruth="0")
        assert self.kept(read_objects, truth, guess).boxes_xyxy[0, 0] == 1
        assert self.kept(read_objects, guess, truth).boxes_xyxy[0, 0] == 1
        assert self.kept(read_objects, truth, entry(0, x=2)).boxes_xyxy[0, 0] == 1  # missing means interpolated

    def test_an_entry_with_a_box_wins_over_ground_truth_without_one(self, read_objects, entry):
        truth, guess = entry(0, isGroundTruth="1"), entry(0, x=2, isGroundTruth="0")
        del truth["bbox"]
        assert self.kept(read_objects, truth, guess).boxes_xyxy[0, 0] == 2
        assert self.kept(read_objects, guess, truth).boxes_xyxy[0, 0] == 2

    def test_ground_truth_wins_over_visible_and_visible_over_hidden(self, read_objects, entry):
        hidden_truth = entry(0, x=1, isGroundTruth=True, visible=False)
        assert self.kept(read_objects, hidden_truth, entry(0, x=2)).boxes_xyxy[0, 0] == 1
        assert self.kept(read_objects, entry(0, x=3), entry(0, x=2, visible=False)).boxes_xyxy[0, 0] == 3

    def test_two_objects_of_one_id_are_one_animal(self, read_objects, entry):
        annotations = read_objects([("1", [entry(0), entry(5)]), ("2", [entry(0)]), ("1", [entry(5, x=3), entry(6)])])
        assert {index: animals.identities for index, animals in annotations.items()} == {
            0: ("1", "2"),
            5: ("1",),
            6: ("1",),
        }
        assert annotations[5].boxes_xyxy[0, 0] == 3

    @given(st.lists(st.tuples(st.sampled_from("12"), st.integers(0, 2), st.booleans(), st.booleans()), max_size=12))
    def test_whatever_repeats_each_animal_has_the_best_of_its_entries(self, tmp_path_factory, records):
        path = tmp_path_factory.mktemp("clip") / "output.json"
        objects = [
            {
                "id": name,
                "frames": [
                    {
                        "frameNumber": step,
                        "bbox": {"x": position, "y": 0, "width": 5, "height": 5},
                        "isGroundTruth": truth,
                        "visible": visible,
                    }
                ],
            }
            for position, (name, step, truth, visible) in enumerate(records)
        ]
        path.write_text(json.dumps({"stepSize": 1 / 6, "objects": objects}))
        found = {
            (step, name): (int(box[0]), bool(visible))
            for step, animals in read_output(path, VIDEO).items()
            for name, box, visible in zip(animals.identities, animals.boxes_xyxy, animals.visible, strict=True)
        }
        expected = {}
        for position, (name, step, truth, visible) in enumerate(records):
            expected.setdefault((step, name), []).append((truth, visible, position))
        assert found == {key: (max(ranks)[2], max(ranks)[1]) for key, ranks in expected.items()}


class TestBoxes:
    def test_a_box_is_left_top_right_bottom_in_pixels(self, read_objects, entry):
        box = read_objects({"1": [entry(0, x=10, y=20.5, width=30, height=7)]})[0].boxes_xyxy
        assert box.dtype == np.float32
        assert box.tolist() == [[10, 20.5, 40, 27.5]]

    def test_a_box_that_leaves_the_picture_is_cut(self, read_objects, entry):
        objects = {"1": [entry(0, x=-10, y=-5)], "2": [entry(0, x=50, y=45)]}
        assert read_objects(objects)[0].boxes_xyxy.tolist() == [[0, 0, 10, 5], [50, 45, 64, 48]]

    def test_an_animal_wholly_outside_is_absent_from_a_frame_that_stays_labelled(self, read_objects, entry):
        animals = read_objects({"1": [entry(0, x=64)]})[0]
        assert len(animals) == 0
        assert animals.boxes_xyxy.shape == (0, 4)

    def test_an_entry_without_a_box_is_passed_over_and_the_frame_is_labelled(self, read_objects, entry):
        annotations = read_objects({"1": [entry(0, bbox=None), entry(1, bbox=...)], "2": [entry(0)]})
        assert {index: animals.identities for index, animals in annotations.items()} == {0: ("2",), 1: ()}

    @pytest.mark.parametrize(("width", "height"), [(-20, 10), (20, -10), (0, 10)])
    def test_a_box_of_negative_size_is_refused(self, read_objects, entry, tmp_path, refused, width, height):
        refused(
            AnnotationError,
            lambda: read_objects({"179": [entry(0), entry(8, width=width, height=height)]}),
            where=f"{tmp_path / 'output.json'}, object '179', frameNumber 8",
            found=f"has a box of width {width} and height {height}",
            expected="a positive width and height",
            fix="Draw this box again, or remove the entry",
        )

    @pytest.mark.parametrize("box", [[1, 2, 3, 4], {"x": 1, "y": 2, "width": 3}, {"x": "1"}, "none", {}])
    def test_a_box_of_another_form_is_refused(self, read_objects, entry, refused, box):
        refused(
            AnnotationError,
            lambda: read_objects({"1": [entry(2, bbox=box)]}),
            where="object '1', frameNumber 2",
            found="has bbox",
            expected="numbers x, y, width, height",
        )


class TestFiles:
    @pytest.mark.parametrize(
        "text", ['{"stepSize": 0.1, "objects": [{"id"', "", "<html>", b"\xff\xfe\x00\x01"], ids=repr
    )
    def test_a_file_that_is_not_json_is_refused(self, tmp_path, write_edinburgh_clip, refused, text):
        path = write_edinburgh_clip(tmp_path) / "output.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        refused(
            AnnotationError,
            lambda: read_edinburgh(tmp_path),
            where=path,
            found="is not JSON",
            expected="what the labelling tool writes",
            fix="Copy or export this file again",
        )

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            ([], "the file is a list"),
            ({}, "'objects' is missing"),
            ({"objects": {}}, "'objects' is a dict"),
            ({"objects": ["1"]}, "object number 0 is a str"),
            ({"objects": [{"id": "1"}]}, "'frames' of object '1' is missing"),
            ({"objects": [{"id": "1", "frames": [3]}]}, "a frame of object '1' is a int"),
        ],
    )
    def test_json_of_another_form_is_refused(self, tmp_path, refused, content, found):
        path = tmp_path / "output.json"
        path.write_text(json.dumps(content))
        refused(AnnotationError, lambda: read_output(path, VIDEO), where=path, found=found, expected="a JSON")

    def test_whatever_stands_anywhere_is_read_or_refused_and_never_a_crash(self, tmp_path, entry, survives):
        frame = entry(3, isGroundTruth=True, visible=True, behaviour="walk")
        content = {"stepSize": 1 / 6, "config": {"stepSize": 1 / 6}, "objects": [{"id": "1", "frames": [frame]}]}
        path = tmp_path / "output.json"

        def read(text):
            path.write_text(text)
            read_output(path, VIDEO)

        assert survives(content, read, AnnotationError, path) > 50

    def test_a_byte_order_mark_is_no_obstacle(self, tmp_path, entry):
        path = tmp_path / "output.json"
        content = {"stepSize": 1 / 6, "objects": [{"id": "1", "frames": [entry(0)]}]}
        path.write_text(json.dumps(content), encoding="utf-8-sig")
        assert list(read_output(path, VIDEO)) == [0]
