import numpy as np
import pytest

from datamodules.cache_manifest import CacheIdentity
from datamodules.cache_progress import finish_cache
from datamodules.clip import Clip
from datamodules.feature_shard import FeatureShardWriter
from datamodules.preprocessing import Preprocessing
from datamodules.shard_manifest import ShardManifest
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.cli import main

MADE_BY = CacheIdentity("abc", Preprocessing(112).describe(), "32-true", "sdpa", {"torch": "2.15"}, "runs/teacher")


class _Grey:
    def __iter__(self):
        return iter([np.full((48, 64, 3), 90, np.uint8)] * 5)

    def fingerprint(self) -> str:
        return "grey"


@pytest.fixture
def made(tmp_path):
    """A shard folder and its cache."""
    clip = Clip("2026_01_01/000000", "2026_01_01", 6.0, 64, 48, 5, _Grey())
    images = write_shards([clip], load_split("pen"), tmp_path / "pen", samples_per_shard=3)
    cache = tmp_path / "cache"
    for image in images.splits["train"]:
        options = {"samples": image.samples, "image_sha256": image.sha256, "identity": MADE_BY}
        with FeatureShardWriter(cache, image.file, **options) as writer:
            for number in range(image.samples):
                writer.append(f"s{number}", np.zeros((4, 3, 3), np.float16))
            writer.commit()
    finish_cache(cache, images, ["train"])
    return images.folder, cache


def test_info_tells_who_made_the_cache_and_what_is_in_it(made, capsys):
    assert main(["cache", "info", "--cache", str(made[1])]) == 0
    shown = capsys.readouterr().out
    for text in ("runs/teacher, trunk abc", "size 112", "32-true", "torch 2.15", "4 channels x 3 x 3, float16"):
        assert text in shown
    assert "train     5 maps of 5 frames in 2 shards" in shown


def test_a_part_without_frames_is_said_to_have_none(made, capsys):
    images, cache = made
    finish_cache(cache, ShardManifest.load(images), ["train", "val"])
    assert main(["cache", "info", "--cache", str(cache)]) == 0
    assert "val       no frames" in capsys.readouterr().out
    assert main(["cache", "codecs", "--cache", str(cache)]) == 1
    assert f"{cache}: has no maps of val, expected some of train and of val" in capsys.readouterr().err


def test_verify_passes_a_whole_cache_and_names_a_damaged_shard(made, capsys):
    images, cache = map(str, made)
    assert main(["cache", "verify", "--cache", cache, "--shards", images]) == 0
    assert "the maps of 5 frames are as they were written, made from the images of" in capsys.readouterr().out
    path = made[1] / "train/train-000001.tar"
    data = bytearray(path.read_bytes())
    data[-1500] ^= 4
    path.write_bytes(data)
    assert main(["cache", "verify", "--cache", cache]) == 1
    assert f"error: {path}: has SHA-256" in capsys.readouterr().err


def test_a_folder_that_is_no_cache_is_refused(made, capsys):
    assert main(["cache", "info", "--cache", str(made[0].parent)]) == 1
    assert "has no manifest" in capsys.readouterr().err
