"""Shards as others meet them: the manifest, samples read by ourselves and by webdataset, verification."""

import json
import tarfile

import cv2
import numpy as np
import pytest
import webdataset

from datamodules.errors import ShardError
from datamodules.files import sha256_of
from datamodules.masks import decode_masks
from datamodules.shards import IndexedShard, ShardManifest, read_shard_clips, verify_shards, write_shards
from datamodules.splits import PARTS, load_split

PEN = load_split("pen")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


class TestManifest:
    def test_it_counts_hashes_and_names_sources_and_the_split(self, folder, clips):
        manifest = ShardManifest.load(folder)
        assert (manifest.split_name, manifest.split_sha256) == ("pen", PEN.sha256)
        assert {part: [shard.samples for shard in manifest.splits[part]] for part in PARTS} == {
            "train": [3, 3, 3],
            "val": [3],
            "test": [4],
        }
        assert [manifest.num_samples(part) for part in PARTS] == [9, 3, 4]
        for shards in manifest.splits.values():
            for shard in shards:
                path = manifest.path(shard)
                assert (shard.sha256, shard.bytes) == (sha256_of(path), path.stat().st_size)
        segments = [
            [(one.clip, one.first_frame, one.frames) for one in shard.clips] for shard in manifest.splits["train"]
        ]
        first, second = clips[0].name, clips[1].name
        assert segments == [[(first, 0, 3)], [(first, 3, 2), (second, 0, 1)], [(second, 1, 3)]]
        entry = manifest.clips[first]
        assert (entry.day, entry.fps, entry.width, entry.height, entry.frames, entry.split) == (
            *("2026_01_01", 6.0, 64, 48),
            *(5, "train"),
        )

    def test_equal_clips_give_equal_bytes_wherever_they_are_written(self, folder, clips, tmp_path):
        write_shards(clips, PEN, tmp_path / "again", samples_per_shard=4)
        assert contents(folder) == contents(tmp_path / "again")
        assert ShardManifest.load(folder).sha256 == ShardManifest.load(tmp_path / "again").sha256

    def test_other_labels_change_the_source_of_their_clip_only(self, folder, clips, make_clip, tmp_path):
        relabelled = make_clip(clips[1].name, 4, masks=True)
        write_shards([clips[0], relabelled, *clips[2:]], PEN, tmp_path / "other", samples_per_shard=4)
        one, other = ShardManifest.load(folder), ShardManifest.load(tmp_path / "other")
        assert [name for name in one.clips if one.clips[name] != other.clips[name]] == [relabelled.name]
        assert one.sha256 != other.sha256

    def test_pictures_that_cannot_tell_their_fingerprint_are_hashed(self, clips, tmp_path, make_clip):
        class Plain:
            def __init__(self, images):
                self.images = images

            def __iter__(self):
                return iter(self.images)

        def source_of(change):
            clip = make_clip()
            images = [image + change for image in clip.source.images]
            plain = type(clip)(clip.name, clip.day, 6.0, 64, 48, 5, Plain(images))
            return write_shards([plain], PEN, tmp_path / str(change)).clips[clip.name].source_sha256

        assert source_of(np.uint8(0)) != source_of(np.uint8(1))

    def test_a_missing_manifest_is_refused(self, tmp_path, refused):
        refused(
            ShardError,
            lambda: ShardManifest.load(tmp_path),
            where=tmp_path,
            found="holds no manifest.json",
            expected="which writes it last",
            fix="run the same command again",
        )

    @pytest.mark.parametrize("text", ["{", "", "[]", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "clips": []}'])
    def test_a_file_of_another_form_is_refused(self, folder, refused, text):
        (folder / "manifest.json").write_text(text)
        refused(ShardError, lambda: ShardManifest.load(folder), where=folder / "manifest.json", fix="shards again")

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (lambda m: m["splits"]["train"][0].update(samples=4), "counts 4 samples in train/train-000000.tar"),
            (lambda m: m["splits"]["train"][0].update(file="../../x.tar"), "names shard '../../x.tar'"),
            (lambda m: m["splits"]["train"][0].update(sha256="00"), "names shard 'train/train-000000.tar' ('00')"),
            (lambda m: m["splits"]["train"].pop(), "counts 4 frames of 2026_01_02/000000, but 1 in the shards"),
            (lambda m: m["clips"].pop("2026_01_26/000000"), "puts 2026_01_26/000000 into test/test-000000.tar"),
            (lambda m: m["clips"]["2026_01_26/000000"].update(split="val"), "in the wrong part"),
            (lambda m: m["splits"]["val"][0].pop("sha256"), "lacks or misspells a field"),
            (lambda m: m["splits"].pop("test"), "lacks or misspells a field (KeyError: 'test')"),
        ],
    )
    def test_one_that_contradicts_itself_is_refused(self, folder, refused, change, found):
        path = folder / "manifest.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        refused(ShardError, lambda: ShardManifest.load(folder), where=path, found=found, fix="Write the shards again")

    def test_whatever_stands_anywhere_is_read_or_refused_and_never_a_crash(self, folder, survives):
        path = folder / "manifest.json"
        content = json.loads(path.read_text())
        name = "2026_01_01/000000"
        content["clips"] = {name: content["clips"][name] | {"frames": 3}}
        content["splits"] = {"train": content["splits"]["train"][:1], "val": [], "test": []}

        def load(text):
            path.write_text(text)
            assert len(ShardManifest.load(folder).sha256) == 64

        load(json.dumps(content))
        assert survives(content, load, ShardError, folder) > 0


class TestSamples:
    def test_webdataset_reads_them(self, folder, clips):
        urls = [str(path) for path in sorted((folder / "train").glob("*.tar"))]
        dataset = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8")
        samples = list(dataset)
        assert [sample["__key__"] for sample in samples] == [
            *(f"2026_01_01-000000-f{index:06d}" for index in range(5)),
            *(f"2026_01_02-000000-f{index:06d}" for index in range(4)),
        ]
        for sample, image in zip(samples, clips[0].source.images, strict=False):
            assert np.abs(sample["jpg"].astype(int) - image).mean() < 1
        assert samples[2]["json"]["clip"] == "2026_01_01/000000"
        assert samples[2]["json"]["frame"] == 2
        assert samples[2]["json"]["timestamp_s"] == pytest.approx(2 / 6)
        assert samples[2]["json"]["identities"] == ["7", "12"]
        assert samples[2]["json"]["boxes_xyxy"] == [[1, 2, 30, 20.5], [40, 3, 64, 48]]
        assert samples[2]["json"]["behaviours"] == ["lying", None]
        assert samples[2]["json"]["visible"] == [True, False]
        assert [sample["json"]["labelled"] for sample in samples[:5]] == [True, False, True, False, True]
        assert len(samples[2]["json"]["masks"]) == 2
        assert samples[5]["json"]["masks"] is None

    def test_clips_come_back_with_all_that_was_known(self, folder, clips, number_of):
        found = read_shard_clips(folder, "train")
        assert [clip.name for clip in found] == [clip.name for clip in clips[:2]]
        for clip, original in zip(found, clips, strict=False):
            assert (clip.day, clip.fps, clip.num_frames) == (original.day, original.fps, original.num_frames)
            assert [number_of(image) for image in clip.source] == list(range(clip.num_frames))
            assert sorted(clip.annotations) == sorted(original.annotations)
            for index, animals in clip.annotations.items():
                expected = original.annotations[index]
                assert (animals.identities, animals.behaviours) == (expected.identities, expected.behaviours)
                np.testing.assert_array_equal(animals.boxes_xyxy, expected.boxes_xyxy)
                np.testing.assert_array_equal(animals.visible, expected.visible)
                if expected.masks is None:
                    assert animals.masks is None
                else:
                    np.testing.assert_array_equal(decode_masks(animals.masks), decode_masks(expected.masks))

    def test_a_sample_is_read_by_its_number(self, folder, number_of):
        shard = IndexedShard(folder / "train" / "train-000001.tar")
        assert len(shard) == 3
        sample = shard[2]
        assert (sample.key, sample.clip, sample.index) == ("2026_01_02-000000-f000000", "2026_01_02/000000", 0)
        assert number_of(sample.image) == 0

    def test_quality_is_the_users(self, clips, tmp_path):
        for quality in (20, 100):
            write_shards(clips[:1], PEN, tmp_path / str(quality), jpeg_quality=quality)
        coarse, fine = (read_shard_clips(tmp_path / str(quality), "train")[0] for quality in (20, 100))
        errors = [
            np.abs(next(iter(clip.source)).astype(int) - clips[0].source.images[0]).mean() for clip in (coarse, fine)
        ]
        assert errors[0] > 0.5 > errors[1]

    def test_a_part_may_be_empty(self, clips, tmp_path):
        write_shards(clips[:1], PEN, tmp_path)
        assert read_shard_clips(tmp_path, "test") == []
        assert verify_shards(tmp_path).splits["test"] == ()


class TestVerify:
    def test_whole_shards_pass(self, folder):
        assert verify_shards(folder) == ShardManifest.load(folder)

    def test_a_changed_byte_is_found(self, folder, refused):
        path = folder / "train" / "train-000002.tar"
        data = bytearray(path.read_bytes())
        data[700] ^= 1
        path.write_bytes(data)
        refused(ShardError, lambda: verify_shards(folder), where=path, found="has SHA-256", fix="Copy this shard again")

    def test_a_cut_shard_is_found(self, folder, refused):
        path = folder / "test" / "test-000000.tar"
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:-512])
        error = refused(ShardError, lambda: verify_shards(folder), where=path, found=f"has {size - 512} bytes")
        assert error.expected == f"{size}, as the manifest says"

    def test_a_missing_shard_is_found(self, folder, refused):
        path = folder / "val" / "val-000000.tar"
        path.unlink()
        refused(ShardError, lambda: verify_shards(folder), where=path, found="is not there")

    def test_a_shard_that_the_manifest_does_not_name_is_found(self, folder, refused):
        path = folder / "val" / "val-000001.tar"
        path.write_bytes((folder / "val" / "val-000000.tar").read_bytes())
        refused(ShardError, lambda: verify_shards(folder), where=path, found="is not in the manifest")

    def test_a_manifest_of_other_samples_is_found_even_where_the_hash_fits(self, folder, refused):
        one, other = folder / "train" / "train-000000.tar", folder / "train" / "train-000002.tar"
        one.write_bytes(other.read_bytes())
        content = json.loads((folder / "manifest.json").read_text())
        shards = content["splits"]["train"]
        shards[0].update(sha256=shards[2]["sha256"], bytes=shards[2]["bytes"])
        (folder / "manifest.json").write_text(json.dumps(content))
        for act in (lambda: verify_shards(folder), lambda: read_shard_clips(folder, "train")):
            refused(
                ShardError,
                act,
                where=f"{one}, sample 0",
                found="is 2026_01_02-000000-f000001",
                expected="2026_01_01-000000-f000000, as the manifest says",
            )


def test_pictures_are_jpegs_of_the_frame_in_rgb(tmp_path, make_clip):
    clip = make_clip(frames=1)
    clip.source.images[0][:] = (200, 20, 60)
    write_shards([clip], PEN, tmp_path)
    with tarfile.open(tmp_path / "train" / "train-000000.tar") as tar:
        data = tar.extractfile("2026_01_01-000000-f000000.jpg").read()
    assert data.startswith(b"\xff\xd8")
    blue, green, red = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[20, 20].astype(int)
    assert (abs(red - 200), abs(green - 20), abs(blue - 60)) < (4, 4, 4)
