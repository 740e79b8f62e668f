"""What is judged and what is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from datamodules.clip import Annotation
from datamodules.errors import AnnotationError
from pl_distill.evaluation.boxes import iou_matrix
from pl_distill.evaluation.mot import count_clip
from pl_distill.evaluation.pairing import pair_with_annotations, pair_with_tracks
from pl_distill.evaluation.track_files import FrameBoxes, read_tracks, write_frame


def square(left: float, top: float = 0, side: float = 10) -> tuple[float, float, float, float]:
    return left, top, left + side, top + side


def truth(visible: dict[str, bool], *boxes: tuple[float, ...]) -> Annotation:
    table = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Annotation(tuple(visible), table, (None,) * len(visible), np.array(list(visible.values()), dtype=bool))


def tracks(**boxes: tuple[float, ...]) -> FrameBoxes:
    ids = tuple(int(name[1:]) for name in boxes)
    table = np.array(list(boxes.values()), dtype=np.float32).reshape(-1, 4)
    return FrameBoxes(ids, table, np.ones(len(ids), np.float32))


def test_iou_of_squares_is_the_one_from_paper():
    iou = iou_matrix(np.array([square(0), square(100)]), np.array([square(0), square(5), square(10), square(0, 0, 5)]))
    np.testing.assert_allclose(iou, [[1, 1 / 3, 0, 0.25], [0, 0, 0, 0]])
    assert iou_matrix(np.zeros((0, 4)), np.array([square(0)])).shape == (0, 1)
    assert iou_matrix(np.zeros((1, 4)), np.zeros((1, 4))) == 0  # no area


@given(npst.arrays(np.float64, (3, 2, 2), elements=st.floats(-50, 50)))
def test_iou_is_symmetric_and_at_most_one(corners):
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    iou = iou_matrix(boxes, boxes)
    np.testing.assert_allclose(iou, iou.T)
    assert (iou >= 0).all()
    assert (iou <= 1 + 1e-9).all()


def test_unlabelled_frames_are_skipped():
    annotations = {0: truth({"a": True}, square(0)), 3: truth({"a": True}, square(0))}
    found = {index: tracks(t1=square(0), t2=square(50)) for index in range(6)}
    counts = count_clip(pair_with_annotations(annotations, found, frames=6))
    assert (counts.scored_frames, counts.matches, counts.false_positives) == (2, 2, 2)
    assert count_clip(pair_with_annotations(annotations, found, frames=3)).scored_frames == 1


def test_a_labelled_frame_without_animals_is_judged():
    counts = count_clip(pair_with_annotations({0: truth({})}, {0: tracks(t1=square(0))}, frames=1))
    assert (counts.scored_frames, counts.false_positives) == (1, 1)


def test_a_track_on_a_hidden_animal_is_neither_right_nor_wrong():
    annotation = truth({"seen": True, "hidden": False}, square(0), square(50))
    with_track = count_clip(pair_with_annotations({0: annotation}, {0: tracks(t1=square(0), t2=square(51))}, 1))
    without = count_clip(pair_with_annotations({0: annotation}, {0: tracks(t1=square(0))}, 1))
    assert with_track.scores() == without.scores()
    assert with_track.scores().mota == 100


def test_a_hidden_animal_excuses_one_track_and_only_where_it_is():
    annotation = truth({"hidden": False}, square(50))
    found = tracks(t1=square(50), t2=square(51), t3=square(0))
    (pair,) = pair_with_annotations({0: annotation}, {0: found}, 1)
    assert pair.truth == ()
    assert pair.tracks == (2, 3)  # the best cover is excused, its double and the stray one are not


def test_a_visible_animal_keeps_its_track_from_a_hidden_one_that_lies_closer():
    annotation = truth({"seen": True, "hidden": False}, square(0), square(2))
    (pair,) = pair_with_annotations({0: annotation}, {0: tracks(t1=square(2))}, 1)
    assert pair.truth == ("seen",)
    assert pair.tracks == (1,)
    assert pair.iou[0, 0] == pytest.approx(8 / 12)


def test_another_models_tracks_serve_as_truth_in_every_frame():
    reference = {0: tracks(t4=square(0)), 2: tracks(t4=square(0))}
    pairs = pair_with_tracks(reference, {0: tracks(t1=square(0))}, frames=3)
    assert [pair.truth for pair in pairs] == [("4",), (), ("4",)]
    assert count_clip(pairs).scores().mota == 50


def test_tracks_come_back_from_their_file(tmp_path):
    path = tmp_path / "tracks.txt"
    with path.open("w") as file:
        write_frame(file, 0, tracks(t3=(0.25, 1.5, 10, 20), t0=square(4)))
        write_frame(file, 7, tracks(t3=square(1)))
    assert path.read_text().splitlines()[0] == "1,3,1.250,2.500,9.750,18.500,1.0000,-1,-1,-1"
    read = read_tracks(path)
    assert sorted(read) == [0, 7]
    assert read[0].ids == (3, 0)
    np.testing.assert_allclose(read[0].boxes_xyxy, [(0.25, 1.5, 10, 20), square(4)])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1,2,3\n", "line 1"),
        ("1,1,0,0,5,5,1\n1,1,9,9,5,5,1\n", "line 2: repeats identity 1 in frame 1"),
        ("0,1,0,0,5,5,1\n", "frames from 1"),
        ("1,1,nan,0,5,5,1\n", "finite"),
        ("1,1,zero,0,5,5,1\n", "in numbers"),
        ("inf,1,0,0,5,5,1\n", "in numbers"),
    ],
)
def test_a_damaged_file_of_tracks_is_refused_by_line(tmp_path, text, complaint):
    path = tmp_path / "tracks.txt"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=complaint):
        read_tracks(path)
