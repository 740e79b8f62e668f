"""The files that the page on a farm of your own shows are read as it says."""

import re
from pathlib import Path

import pytest
from PIL import Image

from datamodules.layouts import read_clips
from datamodules.pen import PenConfig, draw_pen
from datamodules.splits import load_split

pytestmark = pytest.mark.smoke

PAGE = (Path(__file__).resolve().parents[2] / "docs/own-farm.md").read_text(encoding="utf-8")


def block(beginning: str) -> str:
    """Return the one fenced block of the page that begins so."""
    (found,) = [text for text in re.findall(r"^```\w*\n(.*?)^```$", PAGE, re.S | re.M) if text.startswith(beginning)]
    return found


def test_the_split_takes_the_days_of_the_page(tmp_path):
    (tmp_path / "farm.yaml").write_text(block("# farm.yaml"))
    split = load_split(tmp_path / "farm.yaml")
    days = re.findall(r"^recordings/(\d{4}_\d{2}_\d{2})/", PAGE, re.M)
    assert [split.part_of(day) for day in dict.fromkeys(days)] == ["train", "val"]
    assert split.part_of("2026_04_05") == "test"


def test_the_motchallenge_sequence_is_read(tmp_path):
    sequence = tmp_path / "barn3-cam2"
    for name in ("img1", "gt"):
        (sequence / name).mkdir(parents=True)
    (sequence / "seqinfo.ini").write_text(block("[Sequence]").replace("seqLength=300", "seqLength=3"))
    for number in (1, 2, 3):
        Image.new("RGB", (1280, 720)).save(sequence / "img1" / f"{number:06d}.jpg")
    (sequence / "gt/gt.txt").write_text(block("1,17,"))
    (clip,) = read_clips(tmp_path)
    assert clip.day == "2026_03_02"
    assert {frame: animals.identities for frame, animals in clip.annotations.items()} == {0: ("17",), 1: ("17",), 2: ()}
    assert clip.annotations[0].boxes_xyxy.tolist() == [[456, 114, 564, 205]]


def test_the_edinburgh_clip_is_read_with_and_without_labels_and_masks(tmp_path, monkeypatch):
    config = PenConfig("small", width=1280, height=720, num_animals=1)
    draw_pen(tmp_path, config, days=["2026_03_02"], clips_per_day=1, frames_per_clip=4, seed=0)
    (folder,) = (tmp_path / "2026_03_02").iterdir()
    folder = folder.rename(folder.with_name("any-name"))
    for name in ("output.json", "masks.json"):
        (folder / name).unlink()
    (clip,) = read_clips(tmp_path)
    assert (clip.name, clip.num_frames, clip.annotations) == ("2026_03_02/any-name", 4, {})

    (folder / "output.json").write_text(block('{"stepSize"'))
    monkeypatch.chdir(folder)
    exec(block("import json\n"), {})
    (clip,) = read_clips(tmp_path)
    assert list(clip.annotations) == [0, 3], "half a second is three frames"
    assert clip.annotations[3].behaviours == ("lying",)
    assert clip.annotations[3].visible.tolist() == [False]
    assert clip.annotations[0].masks is not None
