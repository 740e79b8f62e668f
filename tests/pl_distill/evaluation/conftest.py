"""Two short clips of drifting squares, as shards; a SAM 3 with random weights and a small student of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from datamodules.clip import Annotation, Clip, Image
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.models.sam3 import load_necks, write_random_sam3
from pl_distill.models.tinyvit_fpn import TinyViTFPN

WIDTH, HEIGHT, FRAMES = 64, 48, 6


@dataclass(frozen=True)
class Squares:
    """Two squares that drift to the right, one pixel a frame; a frame source and its truth."""

    shift: int = 0

    def boxes(self, index: int) -> np.ndarray:
        x = index + self.shift
        return np.array([(4 + x, 4, 16 + x, 16), (20 + x, 24, 36 + x, 40)], np.float32)

    def __iter__(self):
        for index in range(FRAMES):
            image: Image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
            for number, (left, top, right, bottom) in enumerate(self.boxes(index).astype(int)):
                image[top:bottom, left:right] = (220, 90 + 100 * number, 80)
            yield image

    def fingerprint(self) -> str:
        return f"squares {self.shift}"


def make_clip(name: str = "2026_01_26/000000", shift: int = 0, every: int = 1) -> Clip:
    """A clip of squares; every so many frames are labelled, and the second animal is hidden in frame 2."""
    source = Squares(shift)
    annotations = {
        index: Annotation(("a", "b"), source.boxes(index), (None, None), np.array([True, index != 2]))
        for index in range(0, FRAMES, every)
    }
    return Clip(name, name[:10], 6.0, WIDTH, HEIGHT, FRAMES, source, annotations)


@pytest.fixture(name="make_clip", scope="session")
def make_clip_fixture():
    return make_clip


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("squares") / "shards"
    clips = [make_clip("2026_01_26/000000"), make_clip("2026_01_27/000000", shift=5, every=3)]
    write_shards(clips, load_split("pen"), folder)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> Path:
    return write_random_sam3("tiny", tmp_path_factory.mktemp("sam3") / "teacher", seed=0)


def small_student(**changes) -> TinyViTFPN:
    sizes = {"embed_dims": [16, 16, 16, 16], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
    sizes |= {"window_sizes": [2, 2, 2, 2], "body_size": 64, "grid": 8, "out_channels": 32}
    return TinyViTFPN(body="tiny_vit_5m_224", **{**sizes, "fpn_channels": 16, "norm_groups": 4, **changes})


@pytest.fixture(scope="session")
def student(tmp_path_factory, teacher) -> Path:
    folder = tmp_path_factory.mktemp("student") / "student"
    network = small_student()
    necks = load_necks(teacher)
    network.attach_necks(necks.detector_neck, necks.tracker_neck)
    network.save_pretrained(folder, teacher=str(teacher))
    return folder


@pytest.fixture
def save_student(tmp_path):
    """Write another student than `student` into a folder of its own."""

    def save(teacher: str | None, trunk_sha256: str | None = None, **changes) -> Path:
        small_student(**changes).save_pretrained(tmp_path / "other", teacher, trunk_sha256)
        return tmp_path / "other"

    return save
