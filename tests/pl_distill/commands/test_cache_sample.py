"""`pl-distill cache verify --sample`: caches as `pl-distill predict` makes them, and the teacher asked again."""

import json
import shutil

import cv2
import numpy as np
import pytest

from datamodules.clip import Clip
from datamodules.feature_cache import FeatureCache
from datamodules.feature_shard import FeatureShardWriter
from datamodules.shard_manifest import ShardManifest
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.cli import main
from pl_distill.models.sam3 import trunk_map, write_random_sam3


class _Noise:
    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.images = [cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48)) for _ in range(3)]

    def __iter__(self):
        return iter(self.images)

    def fingerprint(self) -> str:
        return str(len(self.images))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_random_sam3("tiny", tmp_path_factory.mktemp("teacher") / "tiny", seed=0)


@pytest.fixture(scope="module")
def pen(tmp_path_factory):
    clips = [
        Clip(f"{day}/000000", day, 6.0, 64, 48, 3, _Noise(n)) for n, day in enumerate(("2026_01_01", "2026_01_21"))
    ]
    return write_shards(clips, load_split("pen"), tmp_path_factory.mktemp("images") / "pen").folder


def _predict(teacher, pen, cache, *options) -> None:
    words = f"predict --config cache/pen.yaml --model.teacher {teacher} --data.shards {pen} --data.cache {cache}"
    assert main([*words.split(), "--data.num_workers", "0", "--trainer.accelerator", "cpu", *options]) == 0


def _verify(teacher, pen, cache, sample=20) -> int:
    words = f"cache verify --cache {cache} --shards {pen} --teacher {teacher} --sample {sample} --device cpu"
    return main(words.split())


@pytest.fixture(scope="module")
def plain(teacher, pen, tmp_path_factory):
    cache = tmp_path_factory.mktemp("plain") / "cache"
    _predict(teacher, pen, cache)
    return cache


@pytest.mark.parametrize(
    ("options", "floor"),
    [
        ("--data.codec float16 --data.views.count 2 --data.views.seed 3 --trainer.precision bf16-mixed", 0.999),
        ("--data.codec int8 --data.views.count 2", 0.998),
        ("--data.codec pca-int8", 0.99),
    ],
)
def test_the_live_teacher_agrees_with_every_codec_and_view(options, floor, teacher, pen, tmp_path, capsys):
    cache = tmp_path / "cache"
    _predict(teacher, pen, cache, *options.split())
    assert main(["cache", "info", "--cache", str(cache)]) == 0
    assert options.split()[1] in capsys.readouterr().out
    assert _verify(teacher, pen, cache) == 0
    shown = capsys.readouterr().out
    assert "the maps of 6 frames are as they were written" in shown
    assert "6 maps agree with the live teacher: mean cosine" in shown
    assert f"floor {floor}" in shown


def test_fewer_frames_are_asked_for_than_there_are(teacher, pen, plain, capsys):
    assert _verify(teacher, pen, plain, sample=2) == 0
    assert "2 maps agree" in capsys.readouterr().out


def test_one_wrong_map_with_a_right_hash_is_found_and_named(teacher, pen, plain, tmp_path, capsys):
    """A mirrored map in the place of one: hashes, shapes and identity are as they should be."""
    cache = tmp_path / "cache"
    shutil.copytree(plain, cache)
    opened, image = FeatureCache.open(cache), ShardManifest.load(pen).splits["train"][0]
    (shard,) = opened.shards("train")
    maps = [shard[number] for number in range(3)]
    with FeatureShardWriter(
        cache, image.file, samples=3, image_sha256=image.sha256, identity=opened.manifest.identity
    ) as writer:
        for number, (key, one) in enumerate(maps):
            writer.append(key, one[:, :, ::-1] if number == 1 else one)
        entry = writer.commit()
    content = json.loads((cache / "manifest.json").read_text())
    content["splits"]["train"][0]["sha256"] = entry.sha256
    (cache / "manifest.json").write_text(json.dumps(content))
    assert _verify(teacher, pen, cache) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        "train frame 2026_01_01-000000-f000001, view 0: has a map whose cosine with the live teacher's is 0." in error
    )
    assert "expected at least 0.999, which float16 keeps" in error


def test_one_map_of_nan_is_no_agreement(teacher, pen, plain, monkeypatch, capsys):
    asked = []

    def broken(model, images):
        asked.append(images)
        return trunk_map(model, images) * (float("nan") if len(asked) == 3 else 1)

    monkeypatch.setattr("pl_distill.modules.teacher_cache.trunk_map", broken)
    assert _verify(teacher, pen, plain) == 1
    assert "f000002, view 0: has a map whose cosine with the live teacher's is nan" in capsys.readouterr().err


def test_another_teacher_is_refused_before_it_is_asked(pen, plain, tmp_path, capsys, monkeypatch):
    other = write_random_sam3("tiny", tmp_path / "other", seed=1)
    monkeypatch.setattr("pl_distill.modules.teacher_cache.trunk_map", None)
    assert _verify(other, pen, plain) == 1
    assert "was made with a teacher whose trunk has SHA-256" in capsys.readouterr().err


@pytest.mark.parametrize("options", ["--sample 3", "--sample 3 --shards x", "--sample -1"])
def test_a_sample_needs_a_teacher_and_images(options, plain, capsys):
    assert main(f"cache verify --cache {plain} {options}".split()) == 1
    assert "--sample: is" in capsys.readouterr().err
