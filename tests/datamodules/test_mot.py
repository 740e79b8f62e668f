"""The layout of MOTChallenge, by small sequences whose values can be checked by hand."""

import numpy as np
import pytest

from datamodules.errors import AnnotationError, ClipError
from datamodules.mot import read_mot

NAME = "barn3-2026-01-31-cam2"


def test_a_sequence_is_read_with_pixels_and_frames_from_zero(tmp_path, write_mot_sequence, number_of):
    write_mot_sequence(tmp_path / NAME, "1,4,11,21,20,10,1,1,1\n3,12,31,6,10.5,8,1,1,0.4\n")
    (clip,) = read_mot(tmp_path)
    assert (clip.name, clip.day, clip.fps, clip.width, clip.height) == (NAME, "2026_01_31", 10.0, 64, 48)
    assert [number_of(frame.image) for frame in clip.frames()] == [0, 1, 2]
    assert clip.annotations[0].identities == ("4",)
    assert clip.annotations[0].boxes_xyxy.tolist() == [[10, 20, 30, 30]]
    assert clip.annotations[2].boxes_xyxy.tolist() == [[30, 5, 40.5, 13]]
    assert clip.annotations[2].visible.tolist() == [True]
    assert clip.annotations[2].behaviours == (None,)
    assert clip.annotations[2].masks is None


def test_with_a_truth_file_every_frame_is_labelled_and_without_one_none_is(tmp_path, write_mot_sequence):
    write_mot_sequence(tmp_path / "a_2026_01_01", "2,1,1,1,5,5,1,1,1\n\n")
    write_mot_sequence(tmp_path / "b_2026_01_01")
    labelled, unlabelled = read_mot(tmp_path)
    assert [len(labelled.annotations[index]) for index in range(3)] == [0, 1, 0]
    assert unlabelled.annotations == {}


def test_sequences_are_found_at_the_root_and_one_or_two_levels_down(tmp_path, write_mot_sequence):
    write_mot_sequence(tmp_path / "train" / "pen-20260101")
    write_mot_sequence(tmp_path / "pen-20260102")
    assert [clip.name for clip in read_mot(tmp_path)] == ["pen-20260102", "train/pen-20260101"]
    assert [clip.name for clip in read_mot(tmp_path / "pen-20260102")] == ["pen-20260102"]


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("20260131_07", "2026_01_31"),
        ("cam-2026_01_31", "2026_01_31"),
        ("99999999-2026-02-30-20260301", "2026_03_01"),
    ],
)
def test_the_day_is_the_first_date_in_the_name(tmp_path, write_mot_sequence, name, day):
    write_mot_sequence(tmp_path / name)
    assert read_mot(tmp_path)[0].day == day


def test_a_day_in_the_sequence_file_goes_before_the_name(tmp_path, write_mot_sequence):
    write_mot_sequence(tmp_path / "pen-20260101", day="2026_02_03")
    assert read_mot(tmp_path)[0].day == "2026_02_03"


def test_a_sequence_without_a_day_is_refused(tmp_path, write_mot_sequence, refused):
    folder = write_mot_sequence(tmp_path / "MOT20-01")
    refused(
        ClipError,
        lambda: read_mot(tmp_path),
        where=folder / "seqinfo.ini",
        found="tells no recording day: 'MOT20-01' holds no date",
        expected="a day, by which clips are split",
        fix="Add the line day=2026_01_31",
    )


def test_columns_are_those_of_both_versions(tmp_path, write_mot_sequence):
    nine = "1,1,1,1,5,5,1,1,0\n"  # hidden
    ten = "1,2,1,1,5,5,1,-1,-1,-1\n"  # world coordinates: visible
    ignored = "1,3,1,1,5,5,0,1,1\n"
    write_mot_sequence(tmp_path / NAME, nine + ten + ignored)
    animals = read_mot(tmp_path)[0].annotations[0]
    assert animals.identities == ("1", "2")
    assert animals.visible.tolist() == [False, True]


def test_boxes_are_cut_at_the_edge_and_dropped_outside(tmp_path, write_mot_sequence):
    write_mot_sequence(tmp_path / NAME, "1,1,-4,-4,10,10,1,1,1\n1,2,65,1,5,5,1,1,1\n")
    animals = read_mot(tmp_path)[0].annotations[0]
    assert animals.identities == ("1",)
    np.testing.assert_array_equal(animals.boxes_xyxy, [[0, 0, 5, 5]])


@pytest.mark.parametrize(
    ("line", "found", "expected"),
    [
        ("1,1,1,1,5,5,1", "reads '1,1,1,1,5,5,1'", "9 or 10 numbers"),
        ("1,one,1,1,5,5,1,1,1", "reads '1,one,", "9 or 10 numbers"),
        ("1,1,nan,1,5,5,1,1,1", "reads '1,1,nan", "9 or 10 numbers"),
        ("0,1,1,1,5,5,1,1,1", "is about frame 0", "a whole number from 1 to 3"),
        ("4,1,1,1,5,5,1,1,1", "is about frame 4", "a whole number from 1 to 3"),
        ("1,1.5,1,1,5,5,1,1,1", "has id 1.5", "a whole number"),
        ("1,1,1,1,-5,5,1,1,1", "has a box of width -5 and height 5", "a positive width and height"),
        ("2,9,1,1,5,5,1,1,1", "gives animal 9 a second box on frame 2", "one"),
    ],
)
def test_a_wrong_line_is_refused_by_its_number(tmp_path, write_mot_sequence, refused, line, found, expected):
    folder = write_mot_sequence(tmp_path / NAME, f"2,9,1,1,5,5,1,1,1\n{line}\n")
    where = f"{folder / 'gt' / 'gt.txt'}, line 2"
    refused(AnnotationError, lambda: read_mot(tmp_path), where=where, found=found, expected=expected)


@pytest.mark.parametrize("end", ["   \n", ",\n", "\t", "\r\n\r\n"])
@pytest.mark.parametrize("comma", ["", ",", ", "])
def test_lines_may_end_in_a_comma_and_the_last_may_be_of_blanks(tmp_path, write_mot_sequence, end, comma):
    lines = [f"1,1,1,1,5,5,1,1,0{comma}\n", f"1,2,1,1,5,5,1,-1,-1,-1{comma}\n"]
    write_mot_sequence(tmp_path / NAME, "".join(lines) + end)
    animals = read_mot(tmp_path)[0].annotations[0]
    assert animals.identities == ("1", "2")
    assert animals.visible.tolist() == [False, True]


def test_keys_of_a_sequence_file_may_be_written_in_any_case(tmp_path, write_mot_sequence):
    path = write_mot_sequence(tmp_path / "pen", day="2026_02_03") / "seqinfo.ini"
    head, _, keys = path.read_text().partition("\n")
    path.write_text(f"{head}\n{keys.lower()}")
    assert (read_mot(tmp_path)[0].num_frames, read_mot(tmp_path)[0].day) == (3, "2026_02_03")
    path.write_text(f"{head}\n{keys.upper().replace('.JPG', '.jpg').replace('IMG1', 'img1')}")
    assert read_mot(tmp_path)[0].num_frames == 3


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe1\x00,\x001\x00", b"1,2,1,1,5,5,1,1,\xe9\n", b'"' + b"1" * 200_000 + b'"\n'],
    ids=["UTF-16", "Latin-1", "a field beyond csv's limit"],
)
def test_a_truth_file_that_is_no_text_is_refused(tmp_path, write_mot_sequence, refused, damage):
    path = write_mot_sequence(tmp_path / NAME, "1,1,1,1,5,5,1,1,1\n") / "gt" / "gt.txt"
    path.write_bytes(path.read_bytes() + damage)
    refused(AnnotationError, lambda: read_mot(tmp_path), where=f"{path}, after line", found="cannot be read")


@pytest.mark.parametrize(
    ("keys", "found", "expected"),
    [
        ({"seqLength": 4}, "has seqLength 4 but img1/ holds 3 pictures", "one picture per frame"),
        ({"imWidth": 1920}, "has imWidth 1920 and imHeight 48", "64 and 48"),
        ({"frameRate": 0}, "has frameRate 0", "a positive number"),
        ({"frameRate": None}, "has frameRate missing", "a positive number"),
        ({"imHeight": "tall"}, "has imHeight tall", "64 and 48"),
    ],
)
def test_a_sequence_file_that_contradicts_its_pictures_is_refused(
    tmp_path, write_mot_sequence, refused, keys, found, expected
):
    folder = write_mot_sequence(tmp_path / NAME, **keys)
    if keys.get("imHeight") == "tall":
        expected = "a positive number"
    refused(ClipError, lambda: read_mot(tmp_path), where=folder / "seqinfo.ini", found=found, expected=expected)


@pytest.mark.parametrize("text", ["", "name=x", "[Seq]\nname=x", "[Sequence\n"])
def test_a_sequence_file_of_another_form_is_refused(tmp_path, write_mot_sequence, refused, text):
    path = write_mot_sequence(tmp_path / NAME) / "seqinfo.ini"
    path.write_text(text)
    refused(ClipError, lambda: read_mot(tmp_path), where=path, found="cannot be read", expected="[Sequence] section")


def test_a_gap_in_the_pictures_is_refused(tmp_path, write_mot_sequence, refused):
    folder = write_mot_sequence(tmp_path / NAME)
    (folder / "img1" / "000002.jpg").unlink()
    refused(ClipError, lambda: read_mot(tmp_path), where=folder / "img1" / "000003.jpg", expected="000002.jpg")


def test_pictures_come_by_their_numbers_however_these_are_written(tmp_path, write_mot_sequence, number_of):
    folder = write_mot_sequence(tmp_path / NAME, frames=12) / "img1"
    for number in range(1, 13):
        (folder / f"{number:06d}.jpg").rename(folder / f"{number}.jpg")
    assert [number_of(image) for image in read_mot(tmp_path)[0].source] == list(range(12))


def test_hidden_files_are_no_pictures(tmp_path, write_mot_sequence):
    folder = write_mot_sequence(tmp_path / NAME)
    (folder / "img1" / "._000001.jpg").write_bytes(b"Mac OS X")
    assert read_mot(tmp_path)[0].num_frames == 3


@pytest.mark.parametrize(("name", "number"), [("2.jpg", 3), ("cow.jpg", 4)])
def test_a_picture_that_is_numbered_twice_or_not_at_all_is_refused(tmp_path, write_mot_sequence, refused, name, number):
    folder = write_mot_sequence(tmp_path / NAME)
    (folder / "img1" / name).write_bytes((folder / "img1" / "000001.jpg").read_bytes())
    expected = f"a name such as {number:06d}.jpg"
    refused(ClipError, lambda: read_mot(tmp_path), where=folder / "img1" / name, expected=expected)


def test_no_pictures_are_refused(tmp_path, write_mot_sequence, refused):
    folder = write_mot_sequence(tmp_path / NAME, imExt=".png")
    refused(ClipError, lambda: read_mot(tmp_path), where=folder / "img1", found="holds no *.png", fix="imExt")


@pytest.mark.parametrize("place", ["../elsewhere", "/tmp"])
def test_pictures_outside_of_the_sequence_are_refused(tmp_path, write_mot_sequence, refused, place):
    path = write_mot_sequence(tmp_path / NAME, imDir=place) / "seqinfo.ini"
    refused(ClipError, lambda: read_mot(tmp_path), where=path, found=f"has imDir {place}", expected="inside")


def test_an_extension_is_no_pattern(tmp_path, write_mot_sequence, refused):
    folder = write_mot_sequence(tmp_path / NAME, imExt="**")
    refused(ClipError, lambda: read_mot(tmp_path), where=folder / "img1", found="holds no ***")


def test_a_damaged_picture_is_refused_when_it_is_reached(tmp_path, write_mot_sequence, refused):
    path = write_mot_sequence(tmp_path / NAME) / "img1" / "000002.jpg"
    path.write_bytes(path.read_bytes()[:200])
    (clip,) = read_mot(tmp_path)
    refused(ClipError, lambda: list(clip.frames()), where=path, found="cannot be decoded", expected="a whole JPEG")


@pytest.mark.parametrize("folder", ["", "elsewhere"])
def test_a_folder_without_sequences_is_refused(tmp_path, refused, folder):
    root = tmp_path / folder
    refused(ClipError, lambda: read_mot(root), where=root, found="no sequence", expected="seqinfo.ini and img1/")
