"""The cache as `pl-distill predict` makes it: the real teacher module, data module and callback under a Trainer."""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.feature_cache_writer import FeatureCacheWriter
from datamodules.cache_manifest import CacheManifest
from datamodules.clip import Clip
from datamodules.errors import CacheError
from datamodules.feature_cache import FeatureCache
from datamodules.shard_index import IndexedShard
from datamodules.shards import write_shards
from datamodules.splits import load_split
from datamodules.teacher_images import TeacherImageDataModule
from pl_distill.cli import main
from pl_distill.errors import ConfigError
from pl_distill.models.sam3 import load_preprocessing, load_sam3, trunk_map, write_random_sam3
from pl_distill.modules.teacher_cache import TeacherCacheModule

RECIPES = sorted((Path(__file__).parents[2] / "configs/cache").glob("*.yaml"))


class _Noise:
    """Coarse coloured noise, another picture for each frame."""

    def __init__(self, frames: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.images = [cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48)) for _ in range(frames)]

    def __iter__(self):
        return iter(self.images)

    def fingerprint(self) -> str:
        return str([int(image.sum()) for image in self.images])


def _draw(folder, seed: int = 0):
    """Seven training frames in shards of 3, 2 and 2; two validation frames in one shard."""
    days = {"2026_01_01": 7, "2026_01_21": 2}
    clips = [Clip(f"{day}/000000", day, 6.0, 64, 48, n, _Noise(n, seed + n)) for day, n in days.items()]
    return write_shards(clips, load_split("pen"), folder, samples_per_shard=3)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_random_sam3("tiny", tmp_path_factory.mktemp("teacher") / "tiny", seed=0)


@pytest.fixture(scope="module")
def pen(tmp_path_factory):
    return _draw(tmp_path_factory.mktemp("images") / "pen")


class _PowerCut(Callback):
    """Counts the frames that the teacher has looked at and stops the run before a batch."""

    def __init__(self, at: int | None = None, error: type[BaseException] = KeyError) -> None:
        self.at, self.error, self.frames = at, error, 0

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.at:
            raise self.error("power cut")
        self.frames += len(batch["key"])


def _predict(teacher, pen, cache, *callbacks, batch_size=1, writer=True, limit=None, **options) -> int:
    """Run the teacher and return how many frames it has looked at."""
    counter = next(iter(callbacks), _PowerCut())
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_predict_batches=limit,
        callbacks=[counter, *([FeatureCacheWriter()] if writer else [])],
    )
    data = TeacherImageDataModule(str(pen.folder), str(cache), batch_size=batch_size, **options)
    returned = trainer.predict(TeacherCacheModule(str(teacher)), data)
    assert not any(returned or []), "Lightning would keep every map in memory"
    return counter.frames


def _bytes(cache) -> dict[str, bytes]:
    return {str(path.relative_to(cache)): path.read_bytes() for path in cache.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(teacher, pen, tmp_path_factory):
    cache = tmp_path_factory.mktemp("whole") / "cache"
    assert _predict(teacher, pen, cache) == 9
    return cache


def test_cached_maps_are_the_live_teachers_rounded_to_float16(teacher, pen, whole):
    model, preprocessing = load_sam3(teacher), load_preprocessing(teacher)
    cache = FeatureCache.open(whole, shards=pen)
    assert (cache.manifest.samples, cache.manifest.shape) == (9, (32, 8, 8))
    for part in ("train", "val"):
        for image_entry, maps in zip(pen.splits[part], cache.shards(part), strict=True):
            images = IndexedShard(pen.path(image_entry))
            for number, name in enumerate(images.keys):
                with torch.no_grad():
                    live = trunk_map(model, preprocessing(images.image(number))[None])[0]
                key, cached = maps[number]
                assert key == name
                assert torch.equal(torch.from_numpy(cached.copy()), live.half())
    cache.verify()


@pytest.mark.parametrize(("at", "finished"), [(0, 0), (4, 1), (6, 2), (8, 3)])  # shards end after 3, 5, 7 and 9 frames
def test_a_rerun_redoes_at_most_the_shard_in_hand(at, finished, teacher, pen, whole, tmp_path):
    cache = tmp_path / "cache"
    with pytest.raises(KeyError, match="power cut"):
        _predict(teacher, pen, cache, _PowerCut(at))
    found = sorted(cache.rglob("*.*"))
    assert [path.suffix for path in found] == [".json", ".tar"] * finished  # nothing half-written
    done = [0, 3, 5, 7][finished]
    assert _predict(teacher, pen, cache) == 9 - done
    assert _bytes(cache) == _bytes(whole)


def test_ctrl_c_leaves_whole_shards_and_no_manifest(teacher, pen, tmp_path):
    cache = tmp_path / "cache"
    with pytest.raises(SystemExit):
        _predict(teacher, pen, cache, _PowerCut(4, KeyboardInterrupt))
    assert sorted(_bytes(cache)) == ["train/train-000000.json", "train/train-000000.tar"]


def test_a_finished_cache_is_reused_and_its_manifest_mended(teacher, pen, whole, tmp_path):
    cache = tmp_path / "cache"
    _predict(teacher, pen, cache)
    (cache / "manifest.json").unlink()  # killed between the last shard and the manifest
    assert _predict(teacher, pen, cache) == 0
    assert _bytes(cache) == _bytes(whole)


def test_jobs_of_an_array_fill_one_cache(teacher, pen, whole, tmp_path):
    cache = tmp_path / "cache"
    assert _predict(teacher, pen, cache, task=1, tasks=2) == 4  # the second and the fourth shard
    assert not (cache / "manifest.json").exists()
    assert _predict(teacher, pen, cache, task=0, tasks=2) == 5
    assert _bytes(cache) == _bytes(whole)


def test_batches_of_any_size_fill_the_same_shards(teacher, pen, whole, tmp_path):
    assert _predict(teacher, pen, tmp_path / "cache", batch_size=2) == 9
    batched, single = FeatureCache.open(tmp_path / "cache"), FeatureCache.open(whole)
    for few, one in zip(batched.shards("train"), single.shards("train"), strict=True):
        for number in range(len(one)):
            assert few[number][0] == one[number][0]
            np.testing.assert_allclose(few[number][1], one[number][1], atol=0.02)


def test_a_split_can_be_added_later(teacher, pen, tmp_path):
    cache = tmp_path / "cache"
    assert _predict(teacher, pen, cache, splits=("val",)) == 2
    assert _predict(teacher, pen, cache, splits=("train",)) == 7
    assert CacheManifest.load(cache).samples == 9


def test_a_shard_that_is_limited_away_is_not_left_half_written(teacher, pen, tmp_path):
    cache = tmp_path / "cache"
    assert _predict(teacher, pen, cache, limit=4) == 4
    assert sorted(_bytes(cache)) == ["train/train-000000.json", "train/train-000000.tar"]


def test_a_cache_of_another_teacher_is_left_alone(pen, whole, tmp_path):
    before = _bytes(whole)
    other = write_random_sam3("tiny", tmp_path / "other", seed=1)
    with pytest.raises(
        CacheError, match=r"train-000000\.tar: was made with a teacher whose trunk has SHA-256 .*tiny\)"
    ):
        _predict(other, pen, whole)
    assert _bytes(whole) == before


def test_a_cache_of_images_that_were_redrawn_is_refused(teacher, whole, tmp_path):
    with pytest.raises(CacheError, match="drawn or exported anew"):
        _predict(teacher, _draw(tmp_path / "pen", seed=5), whole)


def test_without_the_writer_nothing_is_computed(teacher, pen, tmp_path):
    counter = _PowerCut()
    with pytest.raises(ConfigError, match="FeatureCacheWriter"):
        _predict(teacher, pen, tmp_path / "cache", counter, writer=False)
    assert counter.frames == 0


class _NotTheTeacher(LightningModule):
    def predict_step(self, batch, batch_idx):
        return None


def test_the_writer_refuses_other_modules(pen):
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[FeatureCacheWriter()])
    with pytest.raises(ConfigError, match="is used with _NotTheTeacher and TeacherImageDataModule"):
        trainer.predict(_NotTheTeacher(), TeacherImageDataModule(str(pen.folder)))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_fills_a_cache_and_leaves_nothing_beside_it(recipe, teacher, pen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = f"predict --config {recipe} --model.teacher {teacher} --data.shards {pen.folder} --data.cache made"
    words += " --data.num_workers 0 --trainer.accelerator cpu --trainer.devices 1"
    assert main(words.split()) == 0
    assert CacheManifest.load(tmp_path / "made").samples == 9
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_number_out_of_range_gets_one_line_on_the_command_line(teacher, pen, capsys):
    words = f"predict --config {RECIPES[0]} --model.teacher {teacher} --data.shards {pen.folder} --data.batch_size 0"
    assert main(words.split()) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: data.batch_size: is 0, expected at least 1.")


@pytest.mark.smoke
def test_two_ranks_fill_one_cache_though_one_has_nothing_to_do(teacher, pen, whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole, cache)
    (cache / "manifest.json").unlink()
    (cache / "train/train-000001.tar").unlink()
    (cache / "val/val-000000.tar").unlink()  # both are the second rank's
    words = f"predict --config cache/pen.yaml --model.teacher {teacher} --data.shards {pen.folder} --data.cache {cache}"
    words += " --data.batch_size 1 --trainer.accelerator cpu --trainer.devices 2 --trainer.strategy ddp"
    run = subprocess.run(
        [sys.executable, "-m", "pl_distill.cli", *words.split()], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert "2 of 2 shards" in run.stderr
    assert f"{cache} holds 9 maps" in run.stderr
    assert _bytes(cache) == _bytes(whole)
