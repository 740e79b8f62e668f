"""A teacher, a drawn pen and its cache, for what `pl-distill predict` does."""

import cv2
import numpy as np
import pytest
from lightning.pytorch import Callback, Trainer

from callbacks.feature_cache_writer import FeatureCacheWriter
from datamodules.clip import Clip
from datamodules.shards import write_shards
from datamodules.splits import load_split
from datamodules.teacher_images import TeacherImageDataModule
from pl_distill.models.sam3 import write_random_sam3
from pl_distill.modules.teacher_cache import TeacherCacheModule


class Noise:
    """Coarse coloured noise, another picture for each frame."""

    def __init__(self, frames: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.images = [cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48)) for _ in range(frames)]

    def __iter__(self):
        return iter(self.images)

    def fingerprint(self) -> str:
        return str([int(image.sum()) for image in self.images])


class PowerCut(Callback):
    """Counts the frames that the teacher has looked at and stops the run before a batch."""

    def __init__(self, at: int | None = None, error: type[BaseException] = KeyError) -> None:
        self.at, self.error, self.frames = at, error, 0

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.at:
            raise self.error("power cut")
        self.frames += len(batch["key"])


def draw_days(folder, days: dict[str, int], seed: int = 0):
    """Shards of at most three frames, from one clip of noise a day."""
    clips = [Clip(f"{day}/000000", day, 6.0, 64, 48, n, Noise(n, seed + n)) for day, n in days.items()]
    return write_shards(clips, load_split("pen"), folder, samples_per_shard=3)


def run_teacher(teacher, pen, cache, cut=None, *, batch_size=1, writer=..., limit=None, **options) -> int:
    """Run the teacher and return how many pictures it has looked at."""
    counter = cut or PowerCut()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_predict_batches=limit,
        callbacks=[counter, *([FeatureCacheWriter() if writer is ... else writer] if writer is not None else [])],
    )
    data = TeacherImageDataModule(str(pen.folder), str(cache), batch_size=batch_size, **options)
    returned = trainer.predict(TeacherCacheModule(str(teacher)), data)
    assert not any(returned or []), "Lightning would keep every map in memory"
    return counter.frames


@pytest.fixture(scope="session")
def draw():
    """Seven training frames in shards of 3, 2 and 2; two validation frames in one shard; or other days."""

    def draw(folder, seed=0, days=None):
        return draw_days(folder, days or {"2026_01_01": 7, "2026_01_21": 2}, seed)

    return draw


@pytest.fixture(scope="session")
def predict():
    return run_teacher


@pytest.fixture(scope="session")
def power_cut():
    return PowerCut


@pytest.fixture(scope="session")
def contents():
    """The bytes of every file of a cache, by name."""
    return lambda cache: {
        str(path.relative_to(cache)): path.read_bytes() for path in cache.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    return write_random_sam3("tiny", tmp_path_factory.mktemp("teacher") / "tiny", seed=0)


@pytest.fixture(scope="session")
def pen(tmp_path_factory, draw):
    return draw(tmp_path_factory.mktemp("images") / "pen")


@pytest.fixture(scope="session")
def whole(teacher, pen, tmp_path_factory):
    cache = tmp_path_factory.mktemp("whole") / "cache"
    assert run_teacher(teacher, pen, cache) == 9
    return cache
