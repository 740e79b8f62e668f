"""`pl-distill predict` under kill -9: the process gets no chance to tidy up."""

import time

import cv2
import numpy as np
import pytest

from datamodules.cache_manifest import CacheManifest
from datamodules.clip import Clip
from datamodules.feature_cache import FeatureCache
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.cli import main
from pl_distill.models.sam3 import write_random_sam3
from tests.python_process import python_process

FRAMES, PER_SHARD = 96, 6


class _Noise:
    def __iter__(self):
        rng = np.random.default_rng(0)
        return (cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48)) for _ in range(FRAMES))

    def fingerprint(self) -> str:
        return "noise"


def _words(teacher, pen, cache) -> list[str]:
    words = f"predict --config cache/pen.yaml --model.teacher {teacher} --data.shards {pen.folder} --data.cache {cache}"
    return [*words.split(), *["--data.num_workers", "0", "--data.batch_size", "2", "--trainer.accelerator", "cpu"]]


@pytest.mark.slow
@pytest.mark.smoke
def test_no_finished_shard_is_lost_or_touched_and_one_at_most_is_redone(tmp_path):
    teacher = write_random_sam3("tiny", tmp_path / "teacher", seed=0)
    clip = Clip("2026_01_01/000000", "2026_01_01", 6.0, 64, 48, FRAMES, _Noise())
    pen = write_shards([clip], load_split("pen"), tmp_path / "pen", samples_per_shard=PER_SHARD)
    whole, cache = tmp_path / "whole", tmp_path / "cache"
    assert main(_words(teacher, pen, whole)) == 0
    seed = int(time.time())
    delays = np.random.default_rng(seed).random(5) * 0.2
    finished: dict[str, int] = {}
    for delay in delays:
        with python_process("-m", "pl_distill.cli", *_words(teacher, pen, cache)) as run:
            end = time.monotonic() + 120
            while len(list(cache.glob("*/*.json"))) <= len(finished) and run.poll() is None and time.monotonic() < end:
                time.sleep(0.005)
            time.sleep(delay)
        now = {path.stem: path.with_suffix(".tar").stat().st_mtime_ns for path in cache.glob("*/train-*.json")}
        assert now.items() >= finished.items(), f"seed {seed}"
        assert len(now) > len(finished), f"seed {seed}"
        unfinished = {path.name for path in cache.glob("*/*.tar*") if path.stem not in now}
        unfinished |= {path.name for path in cache.glob("*/.*.partial*")}
        assert len({name.strip(".").partition(".")[0] for name in unfinished} - set(now)) <= 1, f"seed {seed}"
        finished = now
        if len(finished) == FRAMES // PER_SHARD:
            break
    assert main(_words(teacher, pen, cache)) == 0
    files = {path.stem: path.stat().st_mtime_ns for path in cache.glob("*/*.tar")}
    assert files.items() >= finished.items(), f"seed {seed}"
    assert CacheManifest.load(cache) == CacheManifest.load(whole), f"seed {seed}"  # every shard's hash
    opened = FeatureCache.open(cache, shards=pen)
    opened.verify()
    keys = [shard[number][0] for shard in opened.shards("train") for number in range(len(shard))]
    assert len(keys) == len(set(keys)) == FRAMES, f"seed {seed}"
    assert not list(cache.glob("*/.*")), f"seed {seed}"
