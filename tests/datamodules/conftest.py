"""Small recordings, made as users have them: videos of grey frames that tell their number, labels in both layouts."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from datamodules.clip import Annotation, Clip
from datamodules.masks import encode_mask
from datamodules.shards import write_shards
from datamodules.splits import load_split
from datamodules.video_writer import VideoWriter


def grey_frame(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture whose grey level tells its number, with a white corner so that up and left can be told."""
    image = np.full((height, width, 3), 20 + 6 * number % 200, np.uint8)
    image[:8, :8] = 255
    return image


def frame_number(image: np.ndarray) -> int:
    """Which `grey_frame` this was, however it was compressed."""
    return round((float(image[16:].mean()) - 20) / 6)


@pytest.fixture
def write_video():
    def write(path: Path, frames: int = 6, fps: float = 6, width: int = 64, height: int = 48) -> Path:
        with VideoWriter(path, fps=fps, width=width, height=height) as video:
            for number in range(frames):
                video.write(grey_frame(number, width, height))
        return path

    return write


@pytest.fixture
def write_edinburgh_clip(write_video):
    """Write <root>/<name>/color.mp4, and output.json with `objects`: id -> entries, or pairs of them."""

    def write(root: Path, name: str = "2019_11_05/000002", *, objects=None, frames=6, fps=6.0, step_s=1 / 6, **extra):
        folder = root / name
        write_video(folder / "color.mp4", frames, fps)
        if objects is not None:
            pairs = objects.items() if isinstance(objects, dict) else objects
            content = {
                "videoFileName": "color.mp4",
                "stepSize": step_s,
                "objects": [{"id": name, "frames": entries} for name, entries in pairs],
                **extra,
            }
            (folder / "output.json").write_text(json.dumps(content))
        return folder

    return write


def entry(step, x=10, y=10, width=20, height=10, **extra):
    """One entry of output.json; `bbox=None` removes the box."""
    record = {"frameNumber": step, "bbox": {"x": x, "y": y, "width": width, "height": height}, **extra}
    return {key: value for key, value in record.items() if value is not ...}


@pytest.fixture(name="entry")
def entry_fixture():
    return entry


@pytest.fixture
def write_mot_sequence():
    """Write a MOTChallenge sequence; `truth` is the text of gt.txt, None for none."""

    def write(folder: Path, truth: str | None = None, frames: int = 3, width: int = 64, height: int = 48, **keys):
        (folder / "img1").mkdir(parents=True)
        for number in range(frames):
            cv2.imwrite(str(folder / "img1" / f"{number + 1:06d}.jpg"), grey_frame(number, width, height))
        info = {"name": folder.name, "imDir": "img1", "frameRate": 10, "seqLength": frames, "imWidth": width}
        info |= {"imHeight": height, "imExt": ".jpg", **keys}
        lines = [f"{key}={value}" for key, value in info.items() if value is not None]
        (folder / "seqinfo.ini").write_text("\n".join(["[Sequence]", *lines, ""]))
        if truth is not None:
            (folder / "gt").mkdir()
            (folder / "gt" / "gt.txt").write_text(truth)
        return folder

    return write


class Pictures:
    """A frame source in memory that counts how many pictures were taken from it, and can fail at one of them."""

    def __init__(self, images, fail_at: int | None = None):
        self.images, self.fail_at, self.taken = images, fail_at, 0

    def __iter__(self):
        for number, image in enumerate(self.images):
            if number == self.fail_at:
                raise KeyboardInterrupt
            self.taken += 1
            yield image

    def fingerprint(self) -> str:
        return str([image.sum() for image in self.images])


@pytest.fixture
def make_clip():
    """A clip in memory: every second frame labelled with two animals, one of them hidden, with masks on request."""

    def make(name="2026_01_01/000000", frames=5, width=64, height=48, masks=False, **source):
        day = name.partition("/")[0]
        mask = np.zeros((height, width), bool)
        mask[4:9, 3:12] = True
        annotations = {
            index: Annotation(
                identities=("7", "12"),
                boxes_xyxy=np.array([[1, 2, 30, 20.5], [40, 3, 64, 48]], np.float32),
                behaviours=("lying", None),
                visible=np.array([True, False]),
                masks=(encode_mask(mask), encode_mask(~mask)) if masks else None,
            )
            for index in range(0, frames, 2)
        }
        images = [grey_frame(number, width, height) for number in range(frames)]
        return Clip(name, day, 6.0, width, height, frames, Pictures(images, **source), annotations)

    return make


@pytest.fixture
def number_of():
    return frame_number


@pytest.fixture
def picture():
    return grey_frame


ODD_VALUES = [None, True, False, 0, 1, -1, 1.5, 1e308, float("nan"), "", "x", "1", [], {}, [1], {"a": 1}, 10**400]


def mutations(content, place=()):
    """Yield JSON texts: each value of `content` in turn replaced by odd ones, and each left out."""

    def replaced(inside, path, change):
        if not path:
            return change
        copy = inside.copy()
        if len(path) == 1 and change is ...:
            del copy[path[0]]
        else:
            copy[path[0]] = replaced(inside[path[0]], path[1:], change)
        return copy

    def places(inside, path=()):
        yield path
        for key in inside if isinstance(inside, dict) else range(len(inside)) if isinstance(inside, list) else ():
            yield from places(inside[key], (*path, key))

    for path in places(content):
        for value in [*ODD_VALUES, *([...] if path else [])]:
            yield (
                json.dumps(replaced(content, path, value))
                if value != 10**400
                else json.dumps(replaced(content, path, "HUGE")).replace('"HUGE"', "9" * 5000)
            )
    yield "[" * 100_000


@pytest.fixture
def survives():
    """Assert that a call with each mutation of `content` returns, or raises `kind` about `where`; count the former."""

    def check(content, call, kind, where):
        returned = 0
        for text in mutations(content):
            error = None
            try:
                call(text)
            except kind as raised:
                error = raised
            assert error is None or str(where) in error.where
            returned += error is None
        return returned

    return check


@pytest.fixture
def refused():
    """Assert that a call raises an error of the user's whose parts hold the given texts."""

    def check(kind, call, *, where="", found="", expected="", fix=""):
        with pytest.raises(kind) as caught:
            call()
        error = caught.value
        assert type(error) is kind
        for text, part in (
            (where, error.where),
            (found, error.found),
            (expected, error.expected),
            (fix, error.fix),
        ):
            assert str(text) in part
        assert all((error.where, error.found, error.expected, error.fix.endswith(".")))
        assert str(error) == f"{error.where}: {error.found}, expected {error.expected}. {error.fix}"
        return error

    return check


@pytest.fixture
def clips(make_clip):
    """Two clips of 5 and 4 frames to train on, one of 3 to validate, one of 4 to test."""
    return [
        make_clip("2026_01_01/000000", 5, masks=True),
        make_clip("2026_01_02/000000", 4),
        make_clip("2026_01_21/000000", 3),
        make_clip("2026_01_26/000000", 4),
    ]


@pytest.fixture
def folder(clips, tmp_path):
    """The same clips as shards of at most 4 samples."""
    write_shards(clips, load_split("pen"), tmp_path / "shards", samples_per_shard=4)
    return tmp_path / "shards"
