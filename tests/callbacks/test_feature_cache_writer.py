"""The cache as `pl-distill predict` makes it: the real teacher module, data module and callback under a Trainer."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from callbacks.feature_cache_writer import FeatureCacheWriter
from datamodules.cache_manifest import CacheManifest
from datamodules.errors import CacheError
from datamodules.feature_cache import FeatureCache
from datamodules.shard_index import IndexedShard
from datamodules.teacher_images import TeacherImageDataModule
from pl_distill.cli import main
from pl_distill.errors import ConfigError
from pl_distill.models.sam3 import load_preprocessing, load_sam3, trunk_map, write_random_sam3

RECIPES = sorted((Path(__file__).parents[2] / "configs/cache").glob("*.yaml"))


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
def test_a_rerun_redoes_at_most_the_shard_in_hand(
    at, finished, teacher, pen, whole, tmp_path, predict, power_cut, contents
):
    cache = tmp_path / "cache"
    with pytest.raises(KeyError, match="power cut"):
        predict(teacher, pen, cache, power_cut(at))
    found = sorted(cache.rglob("*.*"))
    assert [path.suffix for path in found] == [".json", ".tar"] * finished  # nothing half-written
    done = [0, 3, 5, 7][finished]
    assert predict(teacher, pen, cache) == 9 - done
    assert contents(cache) == contents(whole)


def test_ctrl_c_leaves_whole_shards_and_no_manifest(teacher, pen, tmp_path, predict, power_cut, contents):
    cache = tmp_path / "cache"
    with pytest.raises(SystemExit):
        predict(teacher, pen, cache, power_cut(4, KeyboardInterrupt))
    assert sorted(contents(cache)) == ["train/train-000000.json", "train/train-000000.tar"]


def test_a_finished_cache_is_reused_and_its_manifest_mended(teacher, pen, whole, tmp_path, predict, contents):
    cache = tmp_path / "cache"
    predict(teacher, pen, cache)
    (cache / "manifest.json").unlink()  # killed between the last shard and the manifest
    assert predict(teacher, pen, cache) == 0
    assert contents(cache) == contents(whole)


def test_jobs_of_an_array_fill_one_cache(teacher, pen, whole, tmp_path, predict, contents):
    cache = tmp_path / "cache"
    assert predict(teacher, pen, cache, task=1, tasks=2) == 4  # the second and the fourth shard
    assert not (cache / "manifest.json").exists()
    assert predict(teacher, pen, cache, task=0, tasks=2) == 5
    assert contents(cache) == contents(whole)


def test_batches_of_any_size_fill_the_same_shards(teacher, pen, whole, tmp_path, predict):
    assert predict(teacher, pen, tmp_path / "cache", batch_size=2) == 9
    batched, single = FeatureCache.open(tmp_path / "cache"), FeatureCache.open(whole)
    for few, one in zip(batched.shards("train"), single.shards("train"), strict=True):
        for number in range(len(one)):
            assert few[number][0] == one[number][0]
            np.testing.assert_allclose(few[number][1], one[number][1], atol=0.02)


def test_a_split_can_be_added_later(teacher, pen, tmp_path, predict):
    cache = tmp_path / "cache"
    assert predict(teacher, pen, cache, splits=("val",)) == 2
    assert predict(teacher, pen, cache, splits=("train",)) == 7
    assert CacheManifest.load(cache).samples == 9


def test_a_shard_that_is_limited_away_is_not_left_half_written(teacher, pen, tmp_path, predict, contents):
    cache = tmp_path / "cache"
    assert predict(teacher, pen, cache, limit=4) == 4
    assert sorted(contents(cache)) == ["train/train-000000.json", "train/train-000000.tar"]


def test_a_cache_of_another_teacher_is_left_alone(pen, whole, tmp_path, predict, contents):
    before = contents(whole)
    other = write_random_sam3("tiny", tmp_path / "other", seed=1)
    with pytest.raises(
        CacheError, match=r"train-000000\.tar: was made with a teacher whose trunk has SHA-256 .*tiny\)"
    ):
        predict(other, pen, whole)
    assert contents(whole) == before


def test_a_cache_of_images_that_were_redrawn_is_refused(teacher, whole, tmp_path, predict, draw):
    with pytest.raises(CacheError, match="drawn or exported anew"):
        predict(teacher, draw(tmp_path / "pen", seed=5), whole)


def test_without_the_writer_nothing_is_computed(teacher, pen, tmp_path, predict, power_cut):
    counter = power_cut()
    with pytest.raises(ConfigError, match="FeatureCacheWriter"):
        predict(teacher, pen, tmp_path / "cache", counter, writer=None)
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


@pytest.fixture
def two_ranks(teacher, whole, tmp_path):
    """Run `predict` in two processes over a cache that lacks the second rank's shards; the first has nothing to do."""
    cache = tmp_path / "cache"
    shutil.copytree(whole, cache)
    (cache / "manifest.json").unlink()
    (cache / "train/train-000001.tar").unlink()
    (cache / "val/val-000000.tar").unlink()

    def run(shards):
        words = f"predict --config cache/pen.yaml --model.teacher {teacher} --data.shards {shards} --data.cache {cache}"
        words += " --data.batch_size 1 --data.num_workers 0 --trainer.accelerator cpu --trainer.devices 2"
        words += " --trainer.strategy ddp"
        log = tmp_path / "log"
        with log.open("w") as said:  # not a pipe, which the second rank would hold open
            command = [sys.executable, "-m", "pl_distill.cli", *words.split()]
            code = subprocess.run(command, stderr=said, stdout=said, timeout=600).returncode
        return code, log.read_text(), cache

    return run


@pytest.mark.smoke
def test_two_ranks_fill_one_cache_before_the_command_ends_though_one_has_nothing_to_do(pen, whole, two_ranks, contents):
    code, said, cache = two_ranks(pen.folder)
    found = contents(cache)
    assert code == 0, said
    assert found == contents(whole)
    assert "2 of 2 shards" in said
    assert f"{cache} holds the maps of 9 frames" in said


@pytest.mark.smoke
def test_a_rank_that_fails_fails_the_command(pen, tmp_path, two_ranks):
    shutil.copytree(pen.folder, tmp_path / "pen")
    shard = tmp_path / "pen/val/val-000000.tar"
    damaged = shard.read_bytes()
    shard.write_bytes(damaged[:600] + bytes(400) + damaged[1000:])  # in the first picture
    code, said, _ = two_ranks(tmp_path / "pen")
    assert code == 1, said
    assert "predict: process 1 of this machine ended with exit code 1, expected 0 of every process" in said
