import json
from dataclasses import replace

import numpy as np
import pytest

from datamodules.cache_manifest import CacheIdentity
from datamodules.cache_progress import finish_cache
from datamodules.errors import CacheError
from datamodules.feature_cache import FeatureCache
from datamodules.feature_shard import FeatureShardWriter
from datamodules.shards import ShardManifest, write_shards
from datamodules.splits import load_split

MADE_BY = CacheIdentity("abc", {"size": 112}, "32-true", "sdpa", {"torch": "2.15"}, "runs/teacher")


@pytest.fixture
def images(tmp_path, make_clip) -> ShardManifest:
    """Five training frames in two shards, two validation frames in one."""
    clips = [make_clip("2026_01_01/000000", frames=5), make_clip("2026_01_21/000000", frames=2)]
    return write_shards(clips, load_split("pen"), tmp_path / "pen", samples_per_shard=3)


@pytest.fixture
def cache(tmp_path, images):
    folder = tmp_path / "cache"
    number = 0
    for image in images.splits["train"] + images.splits["val"]:
        options = {"samples": image.samples, "image_sha256": image.sha256, "identity": MADE_BY}
        with FeatureShardWriter(folder, image.file, **options) as writer:
            for _ in range(image.samples):
                writer.append(f"s{number}", np.full((2, 3, 3), number, np.float16))
                number += 1
            writer.commit()
    finish_cache(folder, images, ["train", "val"])
    return folder


def test_a_cache_gives_its_maps_by_split_and_order(cache, images):
    opened = FeatureCache.open(cache, shards=images, expected=MADE_BY)
    assert [len(shard) for shard in opened.shards("train")] == [3, 2]
    read = [shard[n] for part in ("train", "val") for shard in opened.shards(part) for n in range(len(shard))]
    assert [(key, float(feature_map.mean())) for key, feature_map in read] == [(f"s{n}", n) for n in range(7)]
    assert opened.manifest.shape == (2, 3, 3)


def test_a_split_that_was_not_cached_is_refused(cache, refused):
    refused(CacheError, lambda: FeatureCache.open(cache).shards("test"), found="train, val", expected="test")


def test_a_cache_of_another_teacher_is_refused_but_not_one_of_other_libraries(cache, refused):
    other = replace(MADE_BY, trunk_sha256="def")
    refused(CacheError, lambda: FeatureCache.open(cache, expected=other), where=cache, found="SHA-256 abc")
    FeatureCache.open(cache, expected=replace(MADE_BY, libraries={"torch": "9"}))


def test_a_missing_or_shortened_shard_is_noticed_when_the_cache_is_opened(cache, refused):
    path = cache / "train/train-000001.tar"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-512])
    refused(CacheError, lambda: FeatureCache.open(cache), where=path, found=f"{size - 512} bytes", expected=f"{size}")
    path.unlink()
    refused(CacheError, lambda: FeatureCache.open(cache), where=path, found="is missing", fix=str(path))


def test_maps_of_redrawn_images_are_refused(cache, images, refused):
    first = replace(images.splits["train"][0], sha256="0" * 64)
    redrawn = replace(images, splits={**images.splits, "train": (first, *images.splits["train"][1:])})
    where = cache / "train/train-000000.tar"
    refused(CacheError, lambda: FeatureCache.open(cache, shards=redrawn), where=where, expected="0" * 64)


def test_images_that_were_added_or_taken_away_are_noticed(cache, images, refused):
    fewer = replace(images, splits={**images.splits, "train": images.splits["train"][:1]})
    refused(CacheError, lambda: FeatureCache.open(cache, shards=fewer), expected="no shard of that name")
    added = replace(images.splits["train"][0], file="train/train-000002.tar")
    more = replace(images, splits={**images.splits, "train": (*images.splits["train"], added)})
    refused(CacheError, lambda: FeatureCache.open(cache, shards=more), found="no maps for train/train-000002.tar")


def test_one_flipped_bit_is_found_by_verify_alone(cache, refused):
    FeatureCache.open(cache).verify()
    path = cache / "val/val-000000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    opened = FeatureCache.open(cache)
    seen: list[int] = []
    refused(CacheError, lambda: opened.verify(seen.append), where=path, fix=f"Delete {path}")
    assert seen == [entry.bytes for entry in opened.manifest.splits["train"]]


def test_a_cache_of_a_codec_that_is_not_known_yet_is_refused(cache, refused):
    path = cache / "manifest.json"
    path.write_text(path.read_text().replace('"codec": "float16"', '"codec": "float4"'))
    refused(CacheError, lambda: FeatureCache.open(cache), found="codec float4", expected="float16, int8, pca-int8")


def test_a_cache_written_before_there_were_codecs_and_views_is_read(cache, images):
    for path in (cache / "manifest.json", *cache.glob("*/*.json")):
        content = json.loads(path.read_text())
        for name in ("basis_sha256", "views"):
            del content["identity"][name]
        for entry in [content.get("shard", {}), *content.get("splits", {}).get("train", [])]:
            entry.pop("views", None)
        path.write_text(json.dumps(content))
    opened = FeatureCache.open(cache, shards=images, expected=MADE_BY)
    assert [len(shard) for shard in opened.shards("train")] == [3, 2]
    assert finish_cache(cache, images, ["train", "val"]) == opened.manifest
