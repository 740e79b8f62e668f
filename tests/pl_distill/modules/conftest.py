import cv2
import numpy as np
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.clip import Annotation, Clip
from datamodules.masks import encode_mask
from datamodules.shards import write_shards
from datamodules.splits import DateRange, Split, parse_day
from pl_distill.models.sam3 import write_random_sam3
from tests.pl_distill.modules.distilling import fit

SIDE = 112


class Pictures:
    def __init__(self, images):
        self.images = images

    def __iter__(self):
        return iter(self.images)


def moving_squares(day: str, frames: int, seed: int) -> Clip:
    """Two bright squares that move over a dark floor, the second hidden in the third frame, and a still feeder."""
    rng = np.random.default_rng(seed)
    images, annotations = [], {}
    starts, steps = rng.integers(10, 50, (2, 2)), rng.integers(1, 4, (2, 2))
    for index in range(frames):
        image = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        boxes = [
            (*(start + index * step), *(start + index * step + 24)) for start, step in zip(starts, steps, strict=True)
        ]
        boxes.append((4, 90, 40, 108))
        names, masks = ("1", "2", "feeder"), []
        for number, (left, top, right, bottom) in enumerate(boxes):
            colour = ((220, 160, 150), (180, 120, 200), (90, 90, 200))[number]
            cv2.rectangle(image, (int(left), int(top)), (int(right) - 1, int(bottom) - 1), colour, -1)
            mask = np.zeros((SIDE, SIDE), bool)
            mask[top:bottom, left:right] = True
            masks.append(encode_mask(mask))
        visible = np.array([True, index != 2, True])
        annotations[index] = Annotation(names, np.array(boxes, np.float32), (None,) * 3, visible, tuple(masks))
        images.append(image)
    return Clip(f"{day}/000000", day, 6.0, SIDE, SIDE, frames, Pictures(images), annotations)


@pytest.fixture(scope="session")
def squares(tmp_path_factory) -> str:
    """Shards of two training clips and one for validation, six frames each."""
    days = ["2020_01_01", "2020_01_02", "2020_01_03"]
    ranges = [DateRange(parse_day("test", day), parse_day("test", day)) for day in days]
    folder = tmp_path_factory.mktemp("squares") / "shards"
    split = Split("test", train=tuple(ranges[:2]), val=(ranges[2],), test=())
    write_shards([moving_squares(day, 6, seed) for seed, day in enumerate(days)], split, folder)
    return str(folder)


@pytest.fixture(scope="package")
def teacher(tmp_path_factory):
    return write_random_sam3("tiny", tmp_path_factory.mktemp("sam3") / "tiny", seed=0)


@pytest.fixture(scope="package")
def fitted(teacher, tmp_path_factory):
    """A module that was trained for four steps, its trainer, and the checkpoint that was written after them."""
    folder = tmp_path_factory.mktemp("fit")
    module, runner = fit(teacher, folder, callbacks=[ModelCheckpoint(folder, save_last=True)])
    return module, runner, folder / "last.ckpt"


@pytest.fixture(scope="package")
def whole(teacher, tmp_path_factory):
    """A module that was trained for eight steps without a stop."""
    return fit(teacher, tmp_path_factory.mktemp("whole"), max_steps=8)[0]
