"""Tars that are not what `write_shards` writes: damaged, foreign or hostile."""

import io
import json
import tarfile

import numpy as np
import pytest

from datamodules.errors import ShardError
from datamodules.masks import decode_masks, encode_mask
from datamodules.shard_sample import SampleRecord
from datamodules.shards import IndexedShard, read_shard_clips


def rewrite(path, members):
    """Write a tar of these (name, bytes or TarInfo)."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)


class TestDamagedShards:
    @pytest.fixture
    def members(self, folder):
        with tarfile.open(folder / "val" / "val-000000.tar") as tar:
            return {member.name: tar.extractfile(member).read() for member in tar}

    @pytest.mark.parametrize(
        ("change", "where", "found"),
        [
            (lambda m: m[:-1], "sample 2026_01_21-000000-f000002", "lacks 2026_01_21-000000-f000002.json"),
            (lambda m: [*m, m[0]], "sample 2026_01_21-000000-f000000", "occurs twice"),
            (lambda m: [*m, ("../evil.json", b"{}")], "member '../evil.json'", "does not belong there"),
            (lambda m: [*m, ("x.pkl", b"")], "member 'x.pkl'", "does not belong there"),
        ],
    )
    def test_members_that_are_missing_double_or_foreign(self, tmp_path, members, refused, change, where, found):
        path = tmp_path / "x.tar"
        rewrite(path, change(list(members.items())))
        refused(ShardError, lambda: IndexedShard(path), where=f"{path}, {where}", found=found, fix="Copy this shard")

    def test_links_are_never_followed(self, tmp_path, refused):
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        rewrite(tmp_path / "x.tar", [("a.jpg", link)])
        refused(ShardError, lambda: IndexedShard(tmp_path / "x.tar"), where="member 'a.jpg'")

    @pytest.mark.parametrize("keep", [0.1, 0.3, 0.5])
    def test_a_cut_tar(self, folder, keep, refused):
        path = folder / "val" / "val-000000.tar"
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
        with pytest.raises(ShardError, match=r"is cut off|cannot be read|lacks|holds"):
            read_shard_clips(folder, "val")

    def test_a_tar_that_was_cut_between_two_samples(self, folder, members, refused):
        path = folder / "val" / "val-000000.tar"
        rewrite(path, list(members.items())[:4])
        refused(
            ShardError,
            lambda: read_shard_clips(folder, "val"),
            where=path,
            found="holds 2 samples",
            expected="3, as the manifest says",
        )

    def test_a_missing_tar(self, tmp_path, refused):
        refused(ShardError, lambda: IndexedShard(tmp_path / "x.tar"), where=tmp_path / "x.tar", found="is not there")

    def test_a_file_that_is_no_tar(self, tmp_path, refused):
        (tmp_path / "x.tar").write_bytes(b"x" * 2000)
        refused(
            ShardError, lambda: IndexedShard(tmp_path / "x.tar"), found="cannot be read", expected="uncompressed tar"
        )

    def test_a_broken_picture_is_named(self, tmp_path, members, refused):
        name, data = next(iter(members.items()))
        rewrite(tmp_path / "x.tar", {**members, name: data[: len(data) // 2]}.items())
        shard = IndexedShard(tmp_path / "x.tar")
        refused(ShardError, lambda: shard[0], where=shard.keys[0], found="its picture cannot be decoded")
        assert shard[1].image.shape == (48, 64, 3)

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            ({"clip": 3}, "its clip is 3"),
            ({"frame": -1}, "its frame is -1"),
            ({"frame": True}, "its frame is True"),
            ({"timestamp_s": "0"}, "its timestamp_s is 0"),
            ({"labelled": 1}, "its labelled is 1"),
            ({"labelled": False}, "its labelled is False"),
            ({"identities": ["7", "7"]}, "its identities is ['7', '7']"),
            ({"identities": ["7"]}, "differ in length"),
            ({"boxes_xyxy": [[5, 0, 1, 9], [0, 0, 1, 1]]}, "its boxes_xyxy is [[5, 0"),
            ({"boxes_xyxy": [[0, 0, 1], [0, 0, 1, 1]]}, "its boxes_xyxy is"),
            ({"behaviours": [3, None]}, "its behaviours is [3, None]"),
            ({"visible": [1, 0]}, "its visible is [1, 0]"),
            ({"masks": [{"size": [4]}, {"size": [4]}]}, "its masks is"),
            ({"colour": "pink"}, "its JSON differs in ['colour']"),
            (None, "its JSON cannot be read"),
        ],
    )
    def test_labels_of_another_form_are_named(self, tmp_path, members, refused, change, found):
        name = next(name for name in members if name.endswith(".json"))
        text = members[name][:-5] if change is None else json.dumps({**json.loads(members[name]), **change}).encode()
        rewrite(tmp_path / "x.tar", {**members, name: text}.items())
        shard = IndexedShard(tmp_path / "x.tar")
        refused(ShardError, lambda: shard.record(0), where=f"x.tar, sample {shard.keys[0]}", found=found)

    def test_whatever_stands_anywhere_in_the_labels_is_read_or_refused_and_never_a_crash(self, members, survives):
        content = json.loads(next(data for name, data in members.items() if name.endswith(".json")))
        mask = np.ones((48, 64), bool)
        content["masks"] = [encode_mask(mask), encode_mask(~mask)]

        def read(text):
            animals = SampleRecord.from_json("here", text.encode()).annotation
            if animals is not None and animals.masks:
                assert decode_masks(animals.masks).shape == (2, 48, 64)

        read(json.dumps(content))
        assert survives(content, read, ShardError, "here") > 0
