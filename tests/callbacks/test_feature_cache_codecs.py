"""Codecs and views in the cache that `pl-distill predict` makes, read back as a training reads it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from datamodules.cached_views import CachedViews
from datamodules.codec_basis import BASIS, basis_sha256
from datamodules.codecs import FLOAT16, Int8
from datamodules.distillation import DistillationDataModule
from datamodules.errors import CacheError
from datamodules.feature_cache import FeatureCache
from pl_distill.models.sam3 import load_sam3, trunk_map, write_random_sam3


@pytest.mark.parametrize(("codec", "least"), [("int8", 0.9999), ("pca-int8", 0.99)])
def test_other_codecs_are_read_as_maps_near_the_teachers(codec, least, teacher, pen, whole, tmp_path, predict):
    cache = tmp_path / "cache"
    assert predict(teacher, pen, cache, codec=codec, batch_size=2) == 9
    stored, exact = FeatureCache.open(cache, shards=pen), FeatureCache.open(whole)
    assert stored.manifest.identity.codec == codec
    assert stored.manifest.shape == exact.manifest.shape
    for one, other in zip(stored.shards("train"), exact.shards("train"), strict=True):
        for number in range(len(one)):
            (key, ours), (name, theirs) = one[number], other[number]
            assert key == name
            assert _cosine(torch.tensor(ours), torch.tensor(theirs)) >= least
    stored.verify()
    assert predict(teacher, pen, cache, codec=codec) == 0


def _cosine(one, other) -> float:
    return float(torch.cosine_similarity(one.float(), other.float(), dim=0).mean())


def test_a_cache_of_another_codec_or_other_views_is_left_alone(teacher, pen, whole, predict):
    with pytest.raises(CacheError, match="was made with the codec float16, expected int8"):
        predict(teacher, pen, whole, codec="int8")
    with pytest.raises(CacheError, match="was made with the views count 1, expected count 3, seed 0"):
        predict(teacher, pen, whole, views=CachedViews(3))


def test_a_rerun_goes_on_with_the_basis_that_it_finds_and_refuses_shards_without_theirs(
    teacher, pen, tmp_path, predict, power_cut, contents
):
    cache, complete = tmp_path / "cache", tmp_path / "complete"
    predict(teacher, pen, complete, codec="pca-int8")
    with pytest.raises(KeyError, match="power cut"):
        predict(teacher, pen, cache, power_cut(4), codec="pca-int8")
    assert predict(teacher, pen, cache, codec="pca-int8") == 6
    assert contents(cache) == contents(complete)
    (cache / BASIS).unlink()
    with pytest.raises(CacheError, match="was made with a basis of SHA-256"):
        predict(teacher, pen, cache, codec="pca-int8")
    with pytest.raises(CacheError, match="cannot be read"):
        FeatureCache.open(cache)


def test_a_basis_that_a_killed_run_left_before_its_first_shard_is_refused_to_others(
    teacher, pen, tmp_path, predict, power_cut
):
    cache, other = tmp_path / "cache", write_random_sam3("tiny", tmp_path / "other", seed=1)
    with pytest.raises(KeyError, match="power cut"):
        predict(teacher, pen, cache, power_cut(0), codec="pca-int8")
    assert [path.name for path in cache.iterdir()] == [BASIS]
    with pytest.raises(CacheError, match=rf"{BASIS}: was made with a teacher whose trunk has SHA-256 .*{other}"):
        predict(other, pen, cache, codec="pca-int8")
    with pytest.raises(CacheError, match=rf"{BASIS}: was made with the views count 1, expected count 3"):
        predict(teacher, pen, cache, codec="pca-int8", views=CachedViews(3))
    assert predict(teacher, pen, cache, codec="pca-int8") == 9


def test_a_basis_that_does_not_say_whose_it_is_is_trusted_for_finished_shards_alone(teacher, pen, tmp_path, predict):
    cache = tmp_path / "cache"
    predict(teacher, pen, cache, codec="pca-int8")
    written = basis_sha256(cache)
    save_file(load_file(cache / BASIS), cache / BASIS)  # as earlier versions did
    for path in cache.rglob("*.json"):
        path.write_text(path.read_text().replace(written, basis_sha256(cache)))
    FeatureCache.open(cache, shards=pen)
    (cache / "train/train-000000.tar").unlink()
    assert predict(teacher, pen, cache, codec="pca-int8") == 3
    for path in [*cache.rglob("*.tar"), *cache.rglob("*.json")]:
        path.unlink()
    with pytest.raises(CacheError, match="does not say on which teacher's maps it was fitted"):
        predict(teacher, pen, cache, codec="pca-int8")


@pytest.mark.parametrize("codec", [FLOAT16, Int8()], ids=lambda codec: codec.name)
def test_each_served_target_is_what_the_live_teacher_says_of_the_same_view(codec, teacher, pen, tmp_path, predict):
    cache, views = tmp_path / "cache", CachedViews(count=3, seed=4, zoom=0.5)
    assert predict(teacher, pen, cache, codec=codec.name, views=views, batch_size=2) == 7 * 3 + 2
    model = load_sam3(teacher)
    data = DistillationDataModule(str(pen.folder), str(cache), batch_size=7, seed=1)
    served, mirrored = {}, []
    loader = data.train_dataloader()
    for epoch in range(6):
        loader.plan.set_epoch(epoch)
        for batch in loader:
            with torch.no_grad():
                live = trunk_map(model, batch["image"])
                flipped = trunk_map(model, batch["image"].flip(3))
            for number, key in enumerate(batch["key"]):
                target = batch["teacher_map"][number]
                assert _cosine(target, live[number]) >= max(codec.floor, 0.9999)
                mirrored.append(_cosine(target.flip(2), flipped[number]))
                served.setdefault(key, set()).add(float(batch["image"][number].sum()))
    assert len(served) == 7
    assert max(map(len, served.values())) == 3  # every view comes up
    assert np.mean([len(pictures) for pictures in served.values()]) > 2
    # What a mirrored map would be worth as the target of a mirrored picture.
    assert np.mean(mirrored) < 0.97
    val = next(iter(data.val_dataloader()))
    with torch.no_grad():
        assert _cosine(val["teacher_map"][0], trunk_map(model, val["image"])[0]) >= codec.floor


def test_a_rerun_of_a_cache_with_views_redoes_the_shard_in_hand_alone(teacher, pen, tmp_path, predict, power_cut):
    cache, views = tmp_path / "cache", CachedViews(count=2)
    with pytest.raises(KeyError, match="power cut"):
        predict(teacher, pen, cache, power_cut(8), views=views)  # the first shard has 3 frames, 6 maps
    assert predict(teacher, pen, cache, views=views) == 16 - 6
    opened = FeatureCache.open(cache, shards=pen)
    assert (opened.manifest.samples, [entry.views for entry in opened.manifest.splits["train"]]) == (9, [2, 2, 2])
    other = replace(opened.manifest.identity, views=CachedViews(2, seed=9).describe())
    with pytest.raises(CacheError, match=r"seed 0.*expected count 2, seed 9"):
        FeatureCache.open(cache, expected=other)
