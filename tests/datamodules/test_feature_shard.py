import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from datamodules.cache_manifest import CacheIdentity, read_ledger
from datamodules.errors import CacheError
from datamodules.feature_shard import FeatureShard, FeatureShardWriter, to_float16
from datamodules.files import sha256_of

MADE_BY = CacheIdentity("abc", {"size": 112}, "32-true", "sdpa", {"torch": "2.15"}, "runs/teacher")
FILE = "train/train-000000.tar"


def _writer(cache, samples=2) -> FeatureShardWriter:
    return FeatureShardWriter(cache, FILE, samples=samples, image_sha256="e" * 64, identity=MADE_BY)


def _write(cache, maps):
    with _writer(cache, len(maps)) as writer:
        for key, feature_map in maps.items():
            writer.append(key, feature_map)
        return writer.commit()


def _maps(count=3, shape=(4, 3, 3)):
    rng = np.random.default_rng(count)
    return {f"clip-f{n:06d}": rng.normal(size=shape).astype(np.float16) for n in range(count)}


@given(
    maps=st.dictionaries(
        st.from_regex(r"[a-z0-9_-]{1,60}", fullmatch=True),
        hnp.arrays(np.float16, (2, 3, 1), elements=st.floats(width=16, allow_nan=False)),
        min_size=1,
        max_size=4,
    )
)
def test_maps_come_back_bit_for_bit_in_any_order(maps, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    entry = _write(cache, maps)
    shard = FeatureShard(cache / FILE, len(maps))
    for number, (key, feature_map) in reversed(list(enumerate(maps.items()))):
        found, back = shard[number]
        assert found == key
        assert back.tobytes() == feature_map.tobytes()
    assert (entry.samples, entry.shape) == (len(maps), (2, 3, 1))
    assert (entry.sha256, entry.bytes) == (sha256_of(cache / FILE), (cache / FILE).stat().st_size)


def test_webdataset_reads_a_feature_shard(tmp_path):
    maps = _maps()
    _write(tmp_path, maps)
    read = list(webdataset.WebDataset(str(tmp_path / FILE), shardshuffle=False, empty_check=False).decode())
    assert [sample["__key__"] for sample in read] == list(maps)
    assert all(np.array_equal(sample["feature.npy"], maps[sample["__key__"]]) for sample in read)


def test_equal_maps_give_equal_bytes(tmp_path):
    maps = _maps()
    first = _write(tmp_path / "a", maps)
    strided = {key: np.asfortranarray(feature_map) for key, feature_map in maps.items()}
    assert _write(tmp_path / "b", strided) == first


def test_a_committed_shard_is_in_the_ledger_and_nothing_else_is_left(tmp_path):
    entry = _write(tmp_path, _maps())
    assert read_ledger(tmp_path, FILE) == (entry, MADE_BY)
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["train-000000.json", "train-000000.tar"]


def test_a_shard_that_is_not_committed_leaves_nothing_behind(tmp_path):
    with _writer(tmp_path) as writer:
        writer.append("a", np.zeros((1, 2, 2), np.float16))
        assert len(list((tmp_path / "train").iterdir())) == 1
    assert list((tmp_path / "train").iterdir()) == []
    assert read_ledger(tmp_path, FILE) is None


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    abandoned = _writer(tmp_path)  # killed: neither committed nor closed
    abandoned.append("a", np.zeros((1, 2, 2), np.float16))
    assert [path.name for path in (tmp_path / "train").iterdir()] == [".train-000000.tar.partial"]
    _write(tmp_path, _maps())
    assert len(list((tmp_path / "train").iterdir())) == 2


def test_a_shard_with_too_few_maps_is_not_committed(tmp_path, refused):
    with _writer(tmp_path, samples=2) as writer:
        writer.append("a", np.zeros((1, 2, 2), np.float16))
        refused(CacheError, writer.commit, where=FILE, found="got 1 maps", expected="2, one per sample")
    assert not (tmp_path / FILE).exists()


def test_maps_of_two_shapes_do_not_share_a_shard(tmp_path, refused):
    with _writer(tmp_path) as writer:
        writer.append("a", np.zeros((1, 2, 2), np.float16))
        wrong = np.zeros((1, 3, 2), np.float16)
        refused(
            CacheError, lambda: writer.append("b", wrong), where="sample b", found="(1, 3, 2)", expected="(1, 2, 2)"
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 65520.0, -1e9])
def test_a_map_that_float16_cannot_hold_is_refused_with_its_sample(value, refused):
    maps = torch.zeros(2, 3, 2, 2)
    maps[1, 2, 0, 1] = value
    refused(CacheError, lambda: to_float16(maps, ["good", "bad"]), where="sample bad", found=f"{abs(value)}")


def test_maps_are_rounded_to_nearest_and_the_largest_float16_passes():
    maps = torch.tensor([65504.0, 1.0 + 2**-12, 1.0 + 3 * 2**-12]).reshape(
        1, 3, 1, 1
    )  # float16 near 1 has steps of 2^-10
    assert to_float16(maps, ["a"]).ravel().tolist() == [65504.0, 1.0, 1.0 + 2**-10]
    assert to_float16(maps.bfloat16()[:, 1:], ["a"]).dtype == np.float16


def test_a_shard_travels_to_another_process(tmp_path):
    maps = _maps()
    _write(tmp_path, maps)
    shard = FeatureShard(tmp_path / FILE, 3)
    _ = shard[0]  # opened before it is sent
    key, feature_map = pickle.loads(pickle.dumps(shard))[2]
    assert np.array_equal(feature_map, maps[key])


def test_a_shard_that_is_cut_off_or_missing_is_refused(tmp_path, refused):
    _write(tmp_path, _maps())
    path = tmp_path / FILE
    refused(CacheError, lambda: FeatureShard(path, 4)[0], where=path, found="has 3 maps", expected="4")
    path.write_bytes(path.read_bytes()[:1600])  # in the second sample
    refused(CacheError, lambda: FeatureShard(path, 3)[0], where=path, fix="pl-distill predict")
    path.unlink()
    refused(CacheError, lambda: FeatureShard(path, 3)[0], where=path, found="cannot be read")


@pytest.mark.parametrize("content", ["text", "float32", "fortran", "pickle", "short"])
def test_a_member_that_is_no_map_is_refused(content, tmp_path, refused):
    stream = io.BytesIO()
    if content == "text":
        stream.write(b"not an array" * 20)
    elif content == "pickle":
        np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        dtype = np.float32 if content == "float32" else np.float16
        np.save(stream, np.ones((2, 3, 4), dtype, order="F" if content == "fortran" else "C"))
    data = stream.getvalue()[: -8 if content == "short" else None]
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a.feature.npy")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    refused(CacheError, lambda: FeatureShard(path, 1)[0], where=path, found="something else for sample a")
