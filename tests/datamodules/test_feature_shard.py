import io
import os
import pickle
import tarfile
import threading

import numpy as np
import pytest
import torch
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from datamodules.cache_manifest import CacheIdentity, read_ledger
from datamodules.codecs import Int8
from datamodules.errors import CacheError
from datamodules.feature_shard import FeatureShard, FeatureShardWriter
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


@settings(max_examples=40)  # each syncs to the disk
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


def test_a_committed_shard_leaves_no_thread_behind(tmp_path):
    before = threading.active_count()
    for number in range(3):
        writer = _writer(tmp_path / str(number), samples=1)
        writer.append("a", np.zeros((1, 2, 2), np.float16))
        writer.commit()  # and never closed, as one that is done with it
    assert threading.active_count() == before


def test_a_shard_that_is_not_committed_leaves_nothing_behind(tmp_path):
    with _writer(tmp_path) as writer:
        writer.append("a", np.zeros((1, 2, 2), np.float16))
        assert len(list((tmp_path / "train").iterdir())) == 1
    assert list((tmp_path / "train").iterdir()) == []
    assert read_ledger(tmp_path, FILE) is None


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    abandoned = _writer(tmp_path)  # killed: neither committed nor closed
    abandoned.append("a", np.zeros((1, 2, 2), np.float16))
    (left,) = (tmp_path / "train").iterdir()
    left.rename(left.with_name(".train-000000.tar.partial-another-host-1"))  # where it ran
    _write(tmp_path, _maps())
    assert len(list((tmp_path / "train").iterdir())) == 2


@pytest.mark.parametrize("value", [0, 1])
def test_a_writer_whose_file_another_cleared_away_finds_the_shard_done(tmp_path, monkeypatch, refused, value):
    """A writer that was given up for lost goes on, and a second one of the same shard is faster."""
    zeros = np.zeros((1, 2, 2), np.float16)
    first = _writer(tmp_path, samples=1)
    first.append("a", zeros)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with _writer(tmp_path, samples=1) as second:
            second.append("a", zeros + value)
            entry = second.commit()
    if value == 0:
        assert first.commit() == entry
    else:
        refused(CacheError, first.commit, found="was deleted by another process", fix="Wait")
    first.close()


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


def test_a_shard_that_was_read_and_closed_keeps_nothing_and_a_worker_is_sent_nothing(tmp_path):
    _write(tmp_path, maps := _maps(40))
    shard = FeatureShard(tmp_path / FILE, 40)
    unread = len(pickle.dumps(shard))
    assert shard[3][0] == list(maps)[3]
    assert len(pickle.dumps(shard)) == unread
    shard.close()
    assert not [value for value in vars(shard).values() if isinstance(value, list) and value]
    assert shard[5][0] == list(maps)[5]


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


def test_views_of_a_frame_stand_beside_it_and_webdataset_reads_them_as_one_sample(tmp_path):
    maps = {key: [np.full((1, 2, 2), 10 * number + view, np.float16) for view in range(3)]
            for number, key in enumerate(("a-f000000", "a-f000001"))}  # fmt: skip
    options = {"samples": 2, "image_sha256": "e" * 64, "identity": MADE_BY, "views": 3}
    with FeatureShardWriter(tmp_path, FILE, **options) as writer:
        for key, views in maps.items():
            for one in views:
                writer.append(key, one)
        entry = writer.commit()
    assert (entry.samples, entry.views) == (2, 3)
    shard = FeatureShard(tmp_path / FILE, 2, views=3)
    for sample, (key, views) in enumerate(maps.items()):
        for view, one in enumerate(views):
            found, back = shard.map(sample, view)
            assert found == key
            assert np.array_equal(back, one)
    assert shard[1][1].max() == 10
    for outside in ((2, 0), (0, 3), (-1, 0)):
        with pytest.raises(IndexError):
            shard.map(*outside)
    read = list(webdataset.WebDataset(str(tmp_path / FILE), shardshuffle=False, empty_check=False).decode())
    assert [sample["__key__"] for sample in read] == list(maps)
    assert all(np.array_equal(sample["v2.feature.npy"], maps[sample["__key__"]][2]) for sample in read)


def test_a_shard_that_lacks_a_view_is_not_committed(tmp_path, refused):
    options = {"samples": 1, "image_sha256": "e" * 64, "identity": MADE_BY, "views": 2}
    with FeatureShardWriter(tmp_path, FILE, **options) as writer:
        writer.append("a", np.zeros((1, 2, 2), np.float16))
        refused(CacheError, writer.commit, where=FILE, found="got 1 maps", expected="2, 2 per sample")


def test_webdataset_reads_int8_maps(tmp_path):
    maps = torch.from_numpy(np.stack(list(_maps().values()))).float()
    options = {"samples": 3, "image_sha256": "e" * 64, "identity": MADE_BY, "codec": Int8()}
    with FeatureShardWriter(tmp_path, FILE, **options) as writer:
        for number, values in enumerate(Int8().quantise(maps)):
            writer.append(f"a-f{number:06d}", values)
        assert writer.commit().shape == (4, 3, 3)
    shard = FeatureShard(tmp_path / FILE, 3, Int8())
    read = list(webdataset.WebDataset(str(tmp_path / FILE), shardshuffle=False, empty_check=False).decode())
    for number, sample in enumerate(read):
        records = sample["feature.npy"]
        value = records["integers"] * records["largest"].astype(np.float32)[:, None, None] / 127
        np.testing.assert_allclose(shard[number][1], value, rtol=1e-3)
    mistaken = FeatureShard(tmp_path / FILE, 3)
    with pytest.raises(CacheError, match="holds something else for sample a-f000000"):
        _ = mistaken[0]
