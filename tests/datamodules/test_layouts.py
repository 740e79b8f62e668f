import pytest

from datamodules.errors import ClipError, DataError
from datamodules.layouts import read_clips

SEQUENCE = "pen-2026-01-05"


def test_the_layout_is_found_out(tmp_path, write_edinburgh_clip, write_mot_sequence):
    write_edinburgh_clip(tmp_path / "a")
    write_mot_sequence(tmp_path / "b" / SEQUENCE)
    assert [clip.name for clip in read_clips(tmp_path / "a")] == ["2019_11_05/000002"]
    assert [clip.name for clip in read_clips(tmp_path / "b")] == [SEQUENCE]


def test_two_layouts_in_one_folder_need_a_choice(tmp_path, write_edinburgh_clip, write_mot_sequence, refused):
    write_edinburgh_clip(tmp_path)
    write_mot_sequence(tmp_path / SEQUENCE)
    refused(
        DataError,
        lambda: read_clips(tmp_path),
        where=tmp_path,
        found="holds 1 clips in the Edinburgh layout and 1 in the MOTChallenge layout",
        expected="one layout",
        fix="layout=edinburgh or layout=mot",
    )
    assert [clip.name for clip in read_clips(tmp_path, "edinburgh")] == ["2019_11_05/000002"]
    assert [clip.name for clip in read_clips(tmp_path, "mot")] == [SEQUENCE]


def test_a_folder_of_neither_layout_is_refused(tmp_path, refused):
    refused(DataError, lambda: read_clips(tmp_path), where=tmp_path, found="holds no clips", expected="seqinfo.ini")


def test_what_is_no_folder_is_refused(tmp_path, refused):
    refused(DataError, lambda: read_clips(tmp_path / "x"), where=tmp_path / "x", found="is not a folder")


@pytest.mark.parametrize("layout", ["edinburgh", "mot"])
def test_a_chosen_layout_must_be_there(tmp_path, refused, layout):
    refused(ClipError, lambda: read_clips(tmp_path, layout), where=tmp_path, found="layout")
