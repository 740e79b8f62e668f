import json
from dataclasses import replace

import pytest

from datamodules.cache_manifest import (
    CacheIdentity,
    CacheManifest,
    FeatureShardEntry,
    gather_manifest,
    read_ledger,
    write_ledger,
)
from datamodules.errors import CacheError
from datamodules.preprocessing import Preprocessing

MADE_BY = CacheIdentity("abc", Preprocessing(112).describe(), "32-true", "sdpa", {"torch": "2.15"}, "runs/teacher")
MADE_BY = replace(MADE_BY, trunk_settings={"window_size": 24})


def _entry(number: int = 0, **changes) -> FeatureShardEntry:
    file = f"train/train-{number:06d}.tar"
    return replace(FeatureShardEntry(file, "f" * 64, 5, 2, (3, 4, 4), "e" * 64), **changes)


def _finish(cache, entry=None, identity=MADE_BY):
    entry = entry or _entry()
    (cache / entry.file).parent.mkdir(parents=True, exist_ok=True)
    (cache / entry.file).write_bytes(bytes(entry.bytes))
    write_ledger(cache, entry, identity)
    return entry


def test_a_manifest_reads_back_as_it_was_written(tmp_path):
    val = _entry(file="val/val-000000.tar", samples=7, bytes=9)
    manifest = CacheManifest(MADE_BY, (3, 4, 4), {"train": (_entry(0), _entry(1)), "val": (val,)})
    manifest.save(tmp_path)
    assert CacheManifest.load(tmp_path) == manifest
    assert (manifest.samples, manifest.bytes) == (11, 19)


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        ({"trunk_sha256": "def"}, "a teacher whose trunk has SHA-256 abc (runs/teacher)", "def (runs/teacher)"),
        ({"preprocessing": Preprocessing(224).describe()}, "the preprocessing size 112, mean", "size 224, mean"),
        ({"trunk_settings": {"window_size": 9}}, "a trunk of window_size 24", "window_size 9"),
        ({"precision": "bf16-mixed"}, "the precision 32-true", "bf16-mixed"),
        ({"attention": "eager"}, "the attention kernel sdpa", "eager"),
        ({"level": "neck"}, "the level trunk", "neck"),
        ({"codec": "int8"}, "the codec float16", "int8"),
        ({"libraries": {"torch": "2.16"}}, "the library versions torch 2.15", "torch 2.16"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_whatever_changes_the_maps_is_refused_by_name(change, found, expected, tmp_path, refused):
    other = replace(MADE_BY, **change)
    check = {"where": tmp_path, "found": f"was made with {found}", "expected": expected, "fix": "cache folder"}
    refused(CacheError, lambda: MADE_BY.require(other, tmp_path, same_libraries=True), **check)


def test_a_reader_does_not_mind_libraries_and_nobody_minds_where_the_teacher_lay(tmp_path):
    MADE_BY.require(replace(MADE_BY, libraries={"torch": "3"}), tmp_path, same_libraries=False)
    MADE_BY.require(replace(MADE_BY, teacher="/elsewhere"), tmp_path, same_libraries=True)


def test_a_cache_that_does_not_say_what_its_trunk_computes_is_taken(tmp_path):
    replace(MADE_BY, trunk_settings={}).require(MADE_BY, tmp_path, same_libraries=True)


def test_a_shard_is_finished_when_tar_and_entry_agree(tmp_path):
    entry = _entry()
    assert read_ledger(tmp_path, entry.file) is None
    _finish(tmp_path)
    assert read_ledger(tmp_path, entry.file) == (entry, MADE_BY)
    (tmp_path / entry.file).write_bytes(b"1234")  # five bytes were promised
    assert read_ledger(tmp_path, entry.file) is None
    (tmp_path / entry.file).unlink()
    assert read_ledger(tmp_path, entry.file) is None


def test_a_tar_without_an_entry_is_not_finished(tmp_path):
    _finish(tmp_path)
    (tmp_path / "train/train-000000.json").unlink()
    assert read_ledger(tmp_path, "train/train-000000.tar") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "cannot be read as JSON"),
        ('{"schema": 2}', "has schema 2"),
        ("[]", "has schema None"),
        ('{"schema": 1}', "is not a ledger entry"),
        ('{"schema": 1, "shard": {"shape": [1, 2, 3], "colour": 1}, "identity": {}}', "is not a ledger entry"),
        ('{"schema": 1, "shard": {"shape": 5}, "identity": {}}', "is not a ledger entry"),
        ('{"schema": 1, "shard": {"shape": [1, 2]}, "identity": {}}', "is not a ledger entry"),
    ],
)
def test_a_ledger_entry_that_is_none_is_refused(text, found, tmp_path, refused):
    entry = _finish(tmp_path)
    path = tmp_path / "train/train-000000.json"
    path.write_text(text)
    refused(CacheError, lambda: read_ledger(tmp_path, entry.file), where=path, found=found)


def test_a_folder_that_is_no_finished_cache_is_refused(tmp_path, refused):
    refused(CacheError, lambda: CacheManifest.load(tmp_path), where=tmp_path, found="has no manifest")
    _finish(tmp_path)
    refused(CacheError, lambda: CacheManifest.load(tmp_path), found="is unfinished", fix="goes on where it stopped")


@pytest.mark.parametrize(
    "text", ['{"schema": 1}', '{"schema": 1, "splits": [], "shape": [1, 2, 3], "identity": 1}', '{"schema": 7}', "\xff"]
)
def test_a_manifest_that_is_none_is_refused(text, tmp_path, refused):
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    refused(CacheError, lambda: CacheManifest.load(tmp_path), where=tmp_path / "manifest.json")


@pytest.mark.parametrize("file", ["../../../etc/hostname", "/etc/hostname", "train/../x.tar", "val/train-000000.tar"])
def test_a_manifest_that_names_files_elsewhere_is_refused(file, tmp_path, refused):
    CacheManifest(MADE_BY, (3, 4, 4), {"train": (_entry(0),)}).save(tmp_path)
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    content["splits"]["train"][0]["file"] = file
    path.write_text(json.dumps(content))
    refused(CacheError, lambda: CacheManifest.load(tmp_path), where=path, found="names the shard")


def test_a_manifest_is_gathered_when_the_last_shard_is_there(tmp_path):
    files = {"train": [_entry(0).file, _entry(1).file], "val": []}
    _finish(tmp_path, _entry(1))
    assert gather_manifest(tmp_path, files) is None
    _finish(tmp_path, _entry(0))
    assert gather_manifest(tmp_path, files) == CacheManifest(
        MADE_BY, (3, 4, 4), {"train": (_entry(0), _entry(1)), "val": ()}
    )


def test_shards_of_two_makers_or_two_shapes_are_not_gathered(tmp_path, refused):
    files = {"train": [_entry(0).file, _entry(1).file]}
    _finish(tmp_path, _entry(0))
    _finish(tmp_path, _entry(1), replace(MADE_BY, libraries={"torch": "2.16"}))
    second = tmp_path / "train/train-000001.tar"
    refused(CacheError, lambda: gather_manifest(tmp_path, files), where=second, found="library versions torch 2.16")
    _finish(tmp_path, _entry(1, shape=(3, 5, 5)))
    refused(CacheError, lambda: gather_manifest(tmp_path, files), where=second, found="(3, 5, 5)", expected="(3, 4, 4)")


def test_a_folder_of_shards_is_not_said_to_be_a_cache_that_may_be_deleted(tmp_path, refused):
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 1, "splits": {}, "clips": {}}))
    refused(
        CacheError, lambda: CacheManifest.load(tmp_path), where=tmp_path, found="is not a cache manifest",
        fix="Give the folder that `pl-distill predict` wrote, by default SHARDS-features.",
    )  # fmt: skip
