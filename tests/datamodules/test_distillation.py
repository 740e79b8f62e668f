import gc
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from datamodules.appearance import Appearance
from datamodules.cache_manifest import CacheIdentity
from datamodules.cache_progress import default_cache, finish_cache
from datamodules.cached_views import CachedViews
from datamodules.distillation import DistillationDataModule
from datamodules.errors import CacheError, ShardError, UserError
from datamodules.feature_shard import FeatureShardWriter
from datamodules.preprocessing import Preprocessing
from datamodules.remote import LocalCopies, RemoteError
from datamodules.shard_index import IndexedShard
from datamodules.shards import write_shards
from datamodules.splits import load_split

PREPROCESSING = Preprocessing(32)
WHOLE = CachedViews()
VIEWS = CachedViews(count=3, seed=2, zoom=0.7)
STRONG = Appearance(probability=1, blur=1)
MADE_BY = CacheIdentity("abc", PREPROCESSING.describe(), "32-true", "sdpa", {"torch": "2.15"}, "runs/teacher")


def _cache(images, splits=("train", "val"), identity=MADE_BY, key=lambda name: name, views=WHOLE):
    """Maps that hold the number of their frame, those of later views a hundred more each."""
    identity = replace(identity, views=views.describe())
    folder = default_cache(images.folder)
    for image in (image for part in splits for image in images.splits[part]):
        options = {"samples": image.samples, "image_sha256": image.sha256, "identity": identity}
        options["views"] = views.of_part(image.file.partition("/")[0])
        with FeatureShardWriter(folder, image.file, **options) as writer:
            for name in IndexedShard(images.path(image)).keys:
                for view in range(options["views"]):
                    writer.append(key(name), np.full((2, 3, 3), 100 * view + int(name[-6:]), np.float16))
            writer.commit()
    finish_cache(folder, images, splits)
    return folder


@pytest.fixture
def pen(tmp_path, make_clip):
    """Fourteen training frames in shards of 5, 5 and 4; three validation frames in one."""
    clips = [make_clip("2026_01_01/000000", frames=14), make_clip("2026_01_21/000000", frames=3)]
    return write_shards(clips, load_split("pen"), tmp_path / "pen", samples_per_shard=5)


@pytest.fixture
def data(pen):
    _cache(pen)
    return DistillationDataModule(str(pen.folder), batch_size=4)


def _frames(batch, number_of) -> list[int]:
    """The frames that a batch's pictures show."""
    pixels = ((batch["image"] * 0.5 + 0.5) * 255).permute(0, 2, 3, 1).numpy()
    return [number_of(image) for image in pixels]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_frame_comes_with_its_own_map(pen, workers, number_of):
    _cache(pen)
    data = DistillationDataModule(str(pen.folder), batch_size=4, num_workers=workers)
    data.setup("fit")
    loader = data.train_dataloader()
    batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    assert len(batches) == 4
    seen = []
    for batch in batches:
        assert batch["image"].shape == (4, 3, 32, 32)
        assert batch["teacher_map"].shape == (4, 2, 3, 3)
        assert batch["image"].dtype == batch["teacher_map"].dtype == torch.float32
        frames = _frames(batch, number_of)
        assert batch["teacher_map"].flatten(1).unique(dim=1).flatten().tolist() == frames
        assert [int(key[-6:]) for key in batch["key"]] == frames
        seen += frames
    assert set(seen) == set(range(14))
    assert seen != sorted(seen)


def test_validation_goes_through_its_split_in_order(data):
    assert [batch["key"] for batch in data.val_dataloader()] == [[f"2026_01_21-000000-f{n:06d}" for n in range(3)]]


def test_the_cache_tells_who_made_it_and_what_pictures_went_through(data):
    assert data.teacher_trunk_sha256 == "abc"
    assert data.map_shape == (2, 3, 3)
    assert data.preprocessing == PREPROCESSING


def test_what_is_learned_from_is_told_by_the_training_pictures_and_the_makers_of_the_maps(pen, make_clip, tmp_path):
    def told(images, identity=MADE_BY):
        _cache(images, identity=identity)
        return DistillationDataModule(str(images.folder)).data_identity

    def written(name, train=14, val=3, **options):
        clips = [make_clip("2026_01_01/000000", frames=train), make_clip("2026_01_21/000000", frames=val)]
        return write_shards(clips, load_split("pen"), tmp_path / name, samples_per_shard=5, **options)

    here = told(pen)
    assert json.loads(json.dumps(here)) == here
    moved = replace(MADE_BY, teacher="elsewhere", libraries={"torch": "2.16"})
    assert told(written("moved", val=2), moved) == here
    assert told(written("redrawn", jpeg_quality=60)) != here
    assert told(written("longer", train=15)) != here
    for change in ({"trunk_sha256": "abd"}, {"precision": "bf16-mixed"}):
        name = "-".join(change)
        assert told(written(name), replace(MADE_BY, **change)) == {**here, **change}


def test_a_pen_without_validation_has_no_validation_loader(tmp_path, make_clip):
    images = write_shards([make_clip("2026_01_01/000000")], load_split("pen"), tmp_path / "pen")
    _cache(images, splits=("train",))
    data = DistillationDataModule(str(images.folder))
    assert data.val_dataloader() == []
    assert len(list(data.train_dataloader())) == 5


def test_a_training_that_would_validate_on_nothing_is_refused(tmp_path, make_clip, refused):
    images = write_shards([make_clip("2026_01_01/000000")], load_split("pen"), tmp_path / "pen")
    _cache(images, splits=("train",))
    data = DistillationDataModule(str(images.folder))
    found, fix = "has no frame in val", "--trainer.limit_val_batches 0"
    refused(ShardError, lambda: _fit(data, tmp_path), where=images.folder, found=found, expected="best.ckpt", fix=fix)
    assert _fit(data, tmp_path, limit_val_batches=0).seen


def test_what_cannot_be_trained_on_is_refused(pen, refused):
    data = DistillationDataModule(str(pen.folder / "nowhere"))
    refused(ShardError, lambda: data.setup("fit"), where="nowhere", found="holds no manifest.json")
    data = DistillationDataModule(str(pen.folder))
    refused(CacheError, lambda: data.setup("fit"), where="pen-features", found="has no manifest")
    _cache(pen, splits=("train",))
    refused(CacheError, data.val_dataloader, found="has the splits train", expected="val", fix="--data.splits")


def test_images_that_were_drawn_anew_are_refused(pen, data, make_clip, tmp_path, refused):
    clips = [make_clip("2026_01_01/000000", frames=14), make_clip("2026_01_21/000000", frames=3)]
    redrawn = write_shards(clips, load_split("pen"), tmp_path / "other", samples_per_shard=5, jpeg_quality=60)
    other = DistillationDataModule(str(redrawn.folder), cache=str(data.cache))
    refused(CacheError, lambda: other.setup("fit"), where="train-000000.tar", fix="drawn or exported anew")


def test_an_image_shard_of_another_length_than_its_manifest_says_is_refused(data, pen, refused):
    first, _, last = (pen.path(shard) for shard in pen.splits["train"])  # 5, 5 and 4 frames
    first.write_bytes(last.read_bytes())
    refused(ShardError, lambda: list(data.train_dataloader()), where=first, found="has 4 samples", expected="5 as its")


def test_a_map_of_another_frame_is_refused(pen, refused):
    _cache(pen, key=lambda name: "x" + name)
    data = DistillationDataModule(str(pen.folder))
    refused(
        CacheError,
        lambda: list(data.val_dataloader()),
        where="val-000000.tar, map 0",
        found="x2026_01_21-000000-f000000",
        expected="2026_01_21-000000-f000000",
    )


def test_unknown_preprocessing_is_refused(pen, refused):
    letterbox = {**PREPROCESSING.describe(), "resize": "letterbox"}
    _cache(pen, identity=CacheIdentity("abc", letterbox, "32-true", "sdpa", {}, "t"))
    data = DistillationDataModule(str(pen.folder))
    refused(CacheError, data.train_dataloader, where="pen-features", found="letterbox", expected="squash")


@pytest.mark.parametrize("name", ["batch_size", "block_shards"])
def test_numbers_that_are_not_positive_are_refused(name, tmp_path, refused):
    refused(UserError, lambda: DistillationDataModule(str(tmp_path), **{name: 0}), where=f"data.{name}", found="is 0")


def _epochs(data, count):
    """Key, map value and picture of every sample, epoch by epoch, as a trainer would ask for them."""
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(count):
        loader.plan.set_epoch(epoch)
        batches = list(loader)
        values = [float(one.mean()) for batch in batches for one in batch["teacher_map"]]
        keys = [key for batch in batches for key in batch["key"]]
        epochs.append(list(zip(keys, values, [one for batch in batches for one in batch["image"]], strict=True)))
    return epochs


def test_the_picture_is_cut_as_the_teacher_saw_it_and_every_view_comes_up(pen):
    _cache(pen, views=VIEWS)
    data = DistillationDataModule(str(pen.folder), batch_size=4)
    images = {key: (shard, number) for entry in pen.splits["train"]
              for shard in [IndexedShard(pen.path(entry))] for number, key in enumerate(shard.keys)}  # fmt: skip
    seen = set()
    for epoch in _epochs(data, 8):
        for key, value, picture in epoch:
            view, frame = divmod(int(value), 100)
            assert frame == int(key[-6:])
            shard, number = images[key]
            assert torch.equal(picture, PREPROCESSING(VIEWS.view(key, view).of_image(shard.image(number))))
            seen.add((key, view))
    assert {view for _, view in seen} == {0, 1, 2}
    assert len(seen) > 0.8 * 14 * 3
    val = list(data.val_dataloader())
    assert [int(one.mean()) for batch in val for one in batch["teacher_map"]] == [0, 1, 2]


def test_colour_and_blur_are_the_students_alone_and_only_in_training(pen):
    _cache(pen, views=VIEWS)
    plain = DistillationDataModule(str(pen.folder), batch_size=4)
    changed = DistillationDataModule(str(pen.folder), batch_size=4, appearance=STRONG)
    for before, after in zip(_epochs(plain, 2), _epochs(changed, 2), strict=True):
        assert [one[:2] for one in before] == [one[:2] for one in after]  # the same frames, maps and views
        assert not any(torch.equal(one[2], other[2]) for one, other in zip(before, after, strict=True))
    for before, after in zip(plain.val_dataloader(), changed.val_dataloader(), strict=True):
        assert torch.equal(before["image"], after["image"])


def test_what_is_drawn_depends_on_seed_epoch_and_sample_not_on_who_draws(pen):
    _cache(pen, views=VIEWS)

    def run(workers, seed=0):
        data = DistillationDataModule(str(pen.folder), batch_size=4, num_workers=workers, seed=seed, appearance=STRONG)
        return [{key: (value, picture.sum().item()) for key, value, picture in epoch} for epoch in _epochs(data, 2)]

    alone = run(0)
    assert run(1) == alone
    assert alone[0] != alone[1]
    assert run(0, seed=1) != alone


class _Student(LightningModule):
    """One factor; remembers which samples it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, ...]] = []
        self.factor = nn.Parameter(torch.ones(()))

    def training_step(self, batch, batch_idx):
        assert batch["teacher_map"].dtype == torch.float32
        self.seen.append(tuple(batch["key"]))
        return (self.factor * batch["image"].mean((1, 2, 3)) - batch["teacher_map"].mean((1, 2, 3))).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/mean", batch["teacher_map"].mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


class _PowerCut(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyError("power cut")


def _fit(data, folder, callbacks=(), ckpt_path=None, limit_val_batches=None) -> _Student:
    student = _Student()
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(
        max_epochs=3,
        callbacks=list(callbacks),
        enable_checkpointing=any(callbacks),
        default_root_dir=folder,
        limit_val_batches=limit_val_batches,
        **options,
    )
    trainer.fit(student, datamodule=data, ckpt_path=ckpt_path)
    return student


def test_a_resumed_training_draws_the_views_and_colours_that_it_would_have_drawn(pen, tmp_path):
    _cache(pen, views=VIEWS)

    def data(workers=0):
        return DistillationDataModule(str(pen.folder), batch_size=4, num_workers=workers, seed=3, appearance=STRONG)

    whole = _fit(data(), tmp_path)
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(KeyError, match="power cut"):
        _fit(data(), tmp_path, [keep, _PowerCut(6)])
    resumed = _fit(data(workers=1), tmp_path, ckpt_path=tmp_path / "step=6.ckpt")
    assert torch.equal(resumed.factor, whole.factor)


def test_a_killed_training_goes_on_with_the_very_samples_it_had_not_seen(pen, tmp_path):
    _cache(pen)

    def data():
        return DistillationDataModule(str(pen.folder), batch_size=4, num_workers=0, seed=3)

    whole = _fit(data(), tmp_path)
    assert len(whole.seen) == 12
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(KeyError, match="power cut"):
        _fit(data(), tmp_path, [keep, _PowerCut(6)])
    resumed = _fit(data(), tmp_path, ckpt_path=tmp_path / "step=6.ckpt")
    assert resumed.seen == whole.seen[6:]
    assert torch.equal(resumed.factor, whole.factor)


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_behind_a_url_give_the_same_batches_from_a_small_local_folder(make_clip, workers, tmp_path):
    clips = [make_clip("2026_01_01/000000", frames=32)]
    pen = write_shards(clips, load_split("pen"), tmp_path / "pen", samples_per_shard=4)
    _cache(pen, ("train",))
    largest = max(path.stat().st_size for path in pen.folder.rglob("*.tar"))
    copies = LocalCopies(str(tmp_path / "copies"), limit_gib=largest / 2**30)  # of all
    local = DistillationDataModule(str(pen.folder), batch_size=4, block_shards=1)
    remote = DistillationDataModule(
        f"file://{pen.folder}", batch_size=4, num_workers=workers, block_shards=1, copies=copies
    )
    for ours, theirs in zip(remote.train_dataloader(), local.train_dataloader(), strict=True):
        assert ours["key"] == theirs["key"]
        assert torch.equal(ours["image"], theirs["image"])
        assert torch.equal(ours["teacher_map"], theirs["teacher_map"])
    left = len(list((tmp_path / "copies").rglob("*.tar")))
    held = 2 * 2 * max(workers, 1)  # images and maps of two shards in each process
    assert 0 < left <= held < 2 * 8


def test_only_the_shards_that_are_in_use_are_open(make_clip, tmp_path):
    """A process may open some thousand files, and an archive has thousands of shards."""
    clips = [make_clip("2026_01_01/000000", frames=24)]
    images = write_shards(clips, load_split("pen"), tmp_path / "pen", samples_per_shard=2)
    cache = _cache(images, splits=("train",))
    data = DistillationDataModule(str(images.folder), batch_size=1, num_workers=0, block_shards=2)
    assert len(list((cache / "train").glob("*.tar"))) == 12
    opened = []
    for _ in data.train_dataloader():
        links = [os.path.realpath(one) for one in Path("/proc/self/fd").iterdir()]
        opened.append(sum(link.startswith(f"{cache.resolve()}{os.sep}") for link in links))
    assert len(opened) == 24
    assert 1 <= max(opened) <= 4


def test_what_is_known_of_a_shard_goes_with_the_shard(make_clip, tmp_path):
    """Keys and offsets of an archive's samples take gigabytes in every worker."""
    clips = [make_clip("2026_01_01/000000", frames=24)]
    images = write_shards(clips, load_split("pen"), tmp_path / "pen", samples_per_shard=2)
    _cache(images, splits=("train",))
    data = DistillationDataModule(str(images.folder), batch_size=1, num_workers=0, block_shards=2)
    before = sum(type(one) is IndexedShard for one in gc.get_objects())
    most = 0
    for _ in data.train_dataloader():
        most = max(most, sum(type(one) is IndexedShard for one in gc.get_objects()) - before)
    assert 1 <= most <= 4


def test_a_shard_that_cannot_be_fetched_ends_the_training_by_name(pen, tmp_path):
    _cache(pen)
    copies = LocalCopies(str(tmp_path / "copies"))
    data = DistillationDataModule(f"file://{pen.folder}", batch_size=4, copies=copies)
    loader = data.train_dataloader()
    (pen.folder / "train" / "train-000001.tar").unlink()
    with pytest.raises(RemoteError, match=r"train-000001.tar: cannot be read"):
        list(loader)
