"""Recordings and labels with a name or place that is not the layout's are named, whatever else is read."""

import shutil

import pytest

from datamodules.edinburgh import find_edinburgh_clips
from datamodules.errors import ClipError
from datamodules.layouts import read_clips
from datamodules.mot import find_mot_sequences

CLIP = "2026_01_26/000001"


@pytest.fixture
def left_out(tmp_path, caplog):
    """Read `tmp_path` and return what was left out: path below it -> reason."""

    def read(names):
        assert [clip.name for clip in read_clips(tmp_path)] == names
        said = [message.split(" is left out, because ") for message in caplog.messages]
        return {path.removeprefix(f"{tmp_path}/"): reason for path, reason in said}

    return read


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("2026_01_26/000002/color.MP4", "it must be called color.mp4"),
        ("2026_01_26/000002/Color.mp4", "it must be called color.mp4"),
        ("2026_01_26/000002/color.avi", "it must be called color.mp4"),
        ("2026_01_26/000002/Output.json", "it must be called output.json"),
        ("2026-01-27/000001/color.mp4", "2026-01-27 is no day, and clips are <YYYY_MM_DD>/<clip>/color.mp4"),
        ("2026_01_27/color.mp4", "it lies in no folder of its own, and clips are"),
        ("color.mp4", "it lies 0 folders deep, and clips are"),
        ("barn/2026_01_26/000001/color.mp4", "it lies 3 folders deep, and clips are"),
        ("2026_01_26/000001/Output.json", "it must be called output.json"),
        ("2026_01_26/000001/Masks.json", "it must be called masks.json"),
    ],
)
def test_beside_a_clip_that_is_read(tmp_path, write_edinburgh_clip, left_out, place, reason):
    write_edinburgh_clip(tmp_path, CLIP)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    ((path, why),) = left_out([CLIP]).items()
    assert path == place
    assert why.startswith(reason)


def test_hidden_and_other_files_are_no_recordings(tmp_path, write_edinburgh_clip, left_out):
    write_edinburgh_clip(tmp_path, CLIP)
    for name in (f"{CLIP}/depth.mp4", f"{CLIP}/._color.mp4", "2026_01_26/._color.mp4", ".trash/color.mp4", "a/b/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert left_out([CLIP]) == {}


def test_links_are_followed_and_lead_to_an_end(tmp_path, write_edinburgh_clip, caplog):
    write_edinburgh_clip(tmp_path / "elsewhere", "2026-01-27/000001")
    root = tmp_path / "elsewhere" / "recordings"
    write_edinburgh_clip(root, CLIP)
    (root / "2026-01-27").symlink_to(tmp_path / "elsewhere" / "2026-01-27")
    (root / "again").symlink_to(root)
    assert [clip.name for clip in read_clips(root)] == [CLIP]
    assert any("/recordings/2026-01-27/000001/color.mp4 is left out" in message for message in caplog.messages)


def test_of_very_many_the_first_are_named_and_the_rest_is_counted(tmp_path, write_edinburgh_clip, caplog):
    write_edinburgh_clip(tmp_path, CLIP)
    for number in range(25):
        (tmp_path / f"{number:02d}.mp4").touch()
    read_clips(tmp_path)
    assert len(caplog.messages) == 11
    assert caplog.messages[-1] == "15 more recordings or labels are left out"


@pytest.mark.parametrize("gone", [("seqinfo.ini",), ("seqinfo.ini", "gt")])
def test_a_sequence_without_its_seqinfo(tmp_path, write_mot_sequence, left_out, gone):
    write_mot_sequence(tmp_path / "a-2026-01-05", "")
    folder = write_mot_sequence(tmp_path / "b-2026-01-05", "")
    for name in gone:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    ((path, why),) = left_out(["a-2026-01-05"]).items()
    assert path == "b-2026-01-05"
    assert why in ("it has gt/ but no seqinfo.ini", "it has img1/ but no seqinfo.ini")


def test_a_sequence_three_folders_deep(tmp_path, write_mot_sequence, left_out):
    write_mot_sequence(tmp_path / "a-2026-01-05")
    write_mot_sequence(tmp_path / "farm" / "train" / "b-2026-01-05")
    reason = "it lies 3 folders deep, and sequences lie at most 2 deep"
    assert left_out(["a-2026-01-05"]) == {"farm/train/b-2026-01-05": reason}


@pytest.mark.parametrize("place", ["GT/gt.txt", "gt/GT.txt", "gt/gt_train.txt", "gt.txt"])
def test_labels_of_a_sequence_under_another_name(tmp_path, write_mot_sequence, left_out, place):
    folder = write_mot_sequence(tmp_path / "a-2026-01-05")
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text("1,1,1,1,5,5,1,1,1\n")
    assert left_out(["a-2026-01-05"]) == {f"a-2026-01-05/{place}": "labels of a sequence are gt/gt.txt"}


def test_other_texts_beside_the_labels_are_nothing(tmp_path, write_mot_sequence, left_out):
    folder = write_mot_sequence(tmp_path / "a-2026-01-05", "")
    (folder / "gt" / "gt_val_half.txt").touch()
    assert left_out(["a-2026-01-05"]) == {}


@pytest.mark.parametrize("layout", ["auto", "mot"])
@pytest.mark.parametrize("given", ["", "a-2026-01-05"])
def test_a_sequence_alone_without_its_seqinfo_is_refused_by_what_it_lacks(
    tmp_path, write_mot_sequence, refused, layout, given
):
    folder = write_mot_sequence(tmp_path / "a-2026-01-05")
    (folder / "seqinfo.ini").unlink()
    found = f"({folder} is left out, because it has img1/ but no seqinfo.ini)"
    refused(ClipError, lambda: read_clips(tmp_path / given, layout), where=tmp_path / given, found=found)


def test_the_only_clip_is_refused_by_what_is_wrong_with_it(tmp_path, write_edinburgh_clip, refused):
    write_edinburgh_clip(tmp_path, "2026-01-27/000001")
    refused(ClipError, lambda: read_clips(tmp_path), where=tmp_path, found="2026-01-27 is no day")


def test_clips_of_the_layout_that_was_not_chosen_are_no_mistake(
    tmp_path, write_edinburgh_clip, write_mot_sequence, caplog
):
    write_edinburgh_clip(tmp_path, CLIP)
    write_mot_sequence(tmp_path / "a-2026-01-05")
    assert len(find_edinburgh_clips(tmp_path)) == len(find_mot_sequences(tmp_path)) == 1
    for layout in ("edinburgh", "mot"):
        assert len(read_clips(tmp_path, layout)) == 1
    assert caplog.messages == []
