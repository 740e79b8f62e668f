from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.cache_manifest import CacheIdentity, CacheManifest
from datamodules.cache_progress import default_cache, finish_cache, owned_by, unfinished_shards
from datamodules.errors import CacheError
from datamodules.feature_shard import FeatureShardWriter
from datamodules.preprocessing import Preprocessing
from datamodules.shard_manifest import ShardEntry, ShardManifest

MADE_BY = CacheIdentity("abc", Preprocessing(112).describe(), "32-true", "sdpa", {"torch": "2.15"}, "runs/teacher")


def _images(train: int = 3, val: int = 1, test: int = 0, sha256: str = "e") -> ShardManifest:
    def shards(part, count):
        return tuple(ShardEntry(f"{part}/{part}-{n:06d}.tar", sha256 * 64, 10, 1, ()) for n in range(count))

    splits = {"train": shards("train", train), "val": shards("val", val), "test": shards("test", test)}
    return ShardManifest(Path("shards"), "pen", "0" * 64, 95, {}, splits)


def _make(cache, image: ShardEntry, identity=MADE_BY) -> None:
    with FeatureShardWriter(cache, image.file, samples=1, image_sha256=image.sha256, identity=identity) as writer:
        writer.append("a", np.ones((2, 3, 3), np.float16))
        writer.commit()


def _files(shards) -> list[str]:
    return [shard.file for shard in shards]


@given(
    train=st.integers(0, 9),
    val=st.integers(0, 4),
    workers=st.integers(1, 5),
    splits=st.sets(st.sampled_from(["train", "val"])),
)
def test_each_shard_has_one_owner_and_the_work_is_even(train, val, workers, splits):
    images = _images(train, val)
    shares = [owned_by(worker, workers, images, sorted(splits)) for worker in range(workers)]
    wanted = [shard.file for split in splits for shard in images.splits[split]]
    assert sorted(file for share in shares for file in share) == sorted(wanted)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_only_what_the_ledger_lacks_is_made_again(tmp_path):
    images = _images(train=3, val=1)
    assert len(unfinished_shards(tmp_path, images, ["train", "val"], MADE_BY)) == 4
    _make(tmp_path, images.splits["train"][1])
    missing = unfinished_shards(tmp_path, images, ["train"], MADE_BY)
    assert _files(missing) == ["train/train-000000.tar", "train/train-000002.tar"]


def test_another_teacher_is_refused_whatever_split_it_has_cached(tmp_path, refused):
    images = _images()
    _make(tmp_path, images.splits["val"][0])
    other = replace(MADE_BY, trunk_sha256="def")
    refused(
        CacheError,
        lambda: unfinished_shards(tmp_path, images, ["train"], other),
        where=tmp_path / "val/val-000000.tar",
        found="SHA-256 abc",
        expected="def",
    )


def test_redrawn_images_are_refused(tmp_path, refused):
    _make(tmp_path, _images(sha256="e").splits["train"][0])
    refused(
        CacheError,
        lambda: unfinished_shards(tmp_path, _images(sha256="d"), ["train"], MADE_BY),
        where=tmp_path / "train/train-000000.tar",
        found="e" * 64,
        expected="d" * 64,
        fix="images were drawn or exported anew",
    )


def test_other_libraries_may_not_go_on_with_a_cache_but_may_find_it_finished(tmp_path):
    images = _images(train=2, val=0)
    newer = replace(MADE_BY, libraries={"torch": "2.16"})
    _make(tmp_path, images.splits["train"][0])
    with pytest.raises(CacheError, match=r"library versions torch 2\.15, expected torch 2\.16"):
        unfinished_shards(tmp_path, images, ["train"], newer)
    _make(tmp_path, images.splits["train"][1])
    assert unfinished_shards(tmp_path, images, ["train"], newer) == []


def test_the_last_shard_completes_the_cache_and_a_later_split_joins_it(tmp_path):
    images = _images(train=2, val=1)
    _make(tmp_path, images.splits["train"][1])
    assert finish_cache(tmp_path, images, ["train"]) is None
    _make(tmp_path, images.splits["train"][0])
    assert finish_cache(tmp_path, images, ["train"]).samples == 2
    _make(tmp_path, images.splits["val"][0])
    finish_cache(tmp_path, images, ["val"])
    splits = CacheManifest.load(tmp_path).splits
    assert {split: _files(shards) for split, shards in splits.items()} == {
        "train": ["train/train-000000.tar", "train/train-000001.tar"],
        "val": ["val/val-000000.tar"],
    }


def test_the_default_cache_lies_beside_the_images(tmp_path, monkeypatch):
    assert default_cache("/data/pen") == Path("/data/pen-features")
    monkeypatch.chdir(tmp_path)
    assert default_cache(".") == tmp_path.with_name(f"{tmp_path.name}-features")
