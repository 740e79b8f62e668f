import shutil
import tarfile
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from datamodules.clip import Annotation, Clip
from datamodules.errors import ShardError, UserError
from datamodules.masks import encode_mask
from datamodules.preprocessing import Preprocessing
from datamodules.shards import write_shards
from datamodules.splits import DateRange, Split, parse_day
from datamodules.tracking import TrackingDataModule
from datamodules.windows import ShardWindows, Variety, collate, place

DAYS = ("2020_01_01", "2020_01_02", "2020_01_03")


class Stripes:
    """Pictures whose grey level is their number times 10."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return (np.full((16, 32, 3), 10 * index, np.uint8) for index in range(self.count))


def clip(day, frames, every=1):
    mask = np.zeros((16, 32), bool)
    mask[4:12, 8:16] = True
    animals = Annotation(
        ("7",), np.array([[8, 4, 16, 12]], np.float32), ("lying",), np.ones(1, bool), (encode_mask(mask),)
    )
    return Clip(
        f"{day}/000000", day, 6.0, 32, 16, frames, Stripes(frames), dict.fromkeys(range(0, frames, every), animals)
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Training: clips of 10 labelled frames and of 5 labelled ones among 9; validation: 4 frames. Shards cut clips."""
    folder = tmp_path_factory.mktemp("windows") / "shards"
    days = [DateRange(parse_day("test", day), parse_day("test", day)) for day in DAYS]
    split = Split("test", train=tuple(days[:2]), val=(days[2],), test=())
    write_shards([clip(DAYS[0], 10), clip(DAYS[1], 9, 2), clip(DAYS[2], 4)], split, folder, samples_per_shard=7)
    return str(folder)


def windows(shards, **options):
    return ShardWindows(shards, "train", Preprocessing(size=8), 8, **options)


def level(image):
    """The grey level that a picture was drawn with, over 10."""
    return round(float((image.mean() + 1) * 127.5 / 10))


def test_only_labelled_frames_are_counted(shards):
    found = windows(shards)
    assert len(found) == 15
    assert sum(found.shard_sizes) == 15
    assert [level(found[i].images[0]) for i in (0, 9, 10, 11, 14)] == [0, 9, 0, 2, 8]


def test_a_window_stays_in_its_clip_and_turns_round_at_its_end(shards):
    found = windows(shards, offsets=[[0, 1, 4]])
    window = found[2]
    assert [level(image) for image in window.images] == [2, 3, 6]
    assert window.times == (0, 1, 4)
    assert [level(image) for image in found[8].images] == [8, 7, 4]
    assert found[8].times == (0, 1, 4)
    assert [level(image) for image in found[10].images] == [0, 2, 8]  # of five labelled frames among nine
    assert window.truth[0].identities == ("7",)
    torch.testing.assert_close(window.truth[0].boxes, torch.tensor([[0.25, 0.25, 0.5, 0.75]]))


@pytest.mark.parametrize(
    ("pattern", "first", "expected"),
    [((0, 2), 0, [0, 2]), ((0, 2), 4, [4, 2]), ((0, 4), 2, [0, 4]), ((0, 3), 3, [3, 0]), ((0,), 4, [4])],
)
def test_patterns_are_laid_forwards_then_backwards_then_moved(pattern, first, expected):
    assert place(pattern, first, range(5)) == expected


def test_no_window_spans_a_gap_in_the_labels(tmp_path):
    """Six labels, a pause, four labels, another pause, two labels that are too few for a window."""
    whole = clip(DAYS[0], 25)
    kept = [*range(6), *range(12, 16), 22, 23]
    gappy = replace(whole, annotations={index: whole.annotations[index] for index in kept})
    days = [DateRange(parse_day("test", day), parse_day("test", day)) for day in DAYS]
    write_shards([gappy, clip(DAYS[2], 4)], Split("test", (days[0],), (days[2],), ()), tmp_path, samples_per_shard=8)
    found = windows(str(tmp_path), offsets=((0, 1, 2, 3),))
    assert len(found) == sum(found.shard_sizes) == 10
    for number in range(10):
        frames = [int(key[-6:]) for key in found[number].keys]
        assert set(frames) < set(kept[:10])
        assert {abs(b - a) for a, b in pairwise(frames)} == {1}


def test_a_clip_that_is_too_short_is_named():
    with pytest.raises(ValueError, match="3 labelled frames"):
        place((0, 3), 0, range(3))


@pytest.mark.parametrize(
    ("offsets", "found"),
    [
        ([[0, 99]], "reach 99 labelled frames ahead, but clip "),
        ([[1, 2]], r"are \[\[1, 2\]\], expected patterns of one length"),
        ([[0], [0, 1]], "expected patterns of one length"),
    ],
)
def test_offsets_that_no_clip_can_meet_are_refused_at_once(shards, offsets, found):
    with pytest.raises(UserError, match=found):
        windows(shards, offsets=offsets)


@pytest.mark.parametrize("name", ["batch_size", "val_batch_size", "val_every"])
def test_numbers_out_of_range_are_refused(name):
    with pytest.raises(UserError, match=rf"data\.{name}: is 0, expected at least 1"):
        TrackingDataModule("shards", **{name: 0})


def test_views_vary_but_agree_within_a_window(shards):
    found = windows(shards, offsets=[[0, 1]], variety=Variety(zoom=0.5))
    drawn = [found[epoch * len(found)] for epoch in range(12)]
    assert len({tuple(window.truth[0].boxes.flatten().tolist()) for window in drawn}) > 3
    for window in drawn:
        torch.testing.assert_close(window.truth[0].boxes, window.truth[1].boxes)


def test_what_is_drawn_hangs_on_seed_epoch_and_sample_alone(shards):
    def drawn(ticket, seed=3):
        found = windows(shards, offsets=[[0, 1], [0, 2]], variety=Variety(zoom=0.5), seed=seed)
        return [found[ticket].images for _ in range(2)]  # twice: nothing is carried on

    ours = drawn(15 + 4)
    torch.manual_seed(1)
    assert all(torch.equal(images, ours[0]) for images in (*ours, *drawn(15 + 4)))
    for others in (drawn(4), drawn(15 + 5), drawn(15 + 4, seed=4)):
        assert not torch.equal(others[0], ours[0])


def test_a_batch_keeps_windows_apart(shards):
    batch = collate([windows(shards, offsets=[[0, 2]])[i] for i in (0, 3)])
    assert batch.images.shape == (2, 2, 3, 8, 8)
    assert [len(frames) for frames in batch.truth] == [2, 2]
    assert batch.keys[1][0].endswith("f000003")


def test_a_part_without_labels_is_refused(shards):
    with pytest.raises(ShardError, match="no labelled frame in test"):
        ShardWindows(shards, "test", Preprocessing(size=8), 8)


def trainer_before_its_first_step():
    epoch = SimpleNamespace(current=SimpleNamespace(started=0, processed=0))
    batches = SimpleNamespace(batch_progress=None)
    loop = SimpleNamespace(restarting=False, epoch_progress=epoch, epoch_loop=batches)
    return SimpleNamespace(global_rank=0, world_size=1, fit_loop=loop)


def test_the_data_module_shuffles_training_and_thins_validation_out(shards):
    data = TrackingDataModule(shards, image_size=8, mask_size=8, batch_size=4, val_every=2, val_batch_size=3)
    data.trainer = trainer_before_its_first_step()
    training = list(data.train_dataloader())
    assert [len(batch.images) for batch in training] == [4, 4, 4, 4]  # the last one is filled up
    assert {key for batch in training for keys in batch.keys for key in keys} == {
        key for number in range(15) for key in windows(shards)[number].keys
    }
    (validation,) = list(data.val_dataloader())
    assert [keys[0][-7:] for keys in validation.keys] == ["f000000", "f000002"]


class Watcher(LightningModule):
    """Remembers what it is shown."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.images)
        return self.factor * batch.images.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class PowerCut(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 6:
            raise KeyError("power cut")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_training_is_shown_what_it_would_have_been_shown(shards, workers, tmp_path):
    def fit(*callbacks, ckpt_path=None):
        torch.manual_seed(7)  # a start seeds, and knows nothing of the draws of the one before
        module = Watcher()
        data = TrackingDataModule(shards, 8, 8, batch_size=4, num_workers=workers, offsets=[[0, 1], [0, 3]])
        trainer = Trainer(
            accelerator="cpu", max_epochs=3, limit_val_batches=0, callbacks=list(callbacks), logger=False,
            enable_checkpointing=bool(callbacks), enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
        return module.seen

    whole = fit()
    assert len(whole) == 12  # four batches an epoch
    with pytest.raises(KeyError, match="power cut"):
        fit(PowerCut(), ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1))
    resumed = fit(ckpt_path=tmp_path / "step=6.ckpt")
    assert len(resumed) == 6
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(resumed, whole[6:], strict=True))


def test_a_shard_that_was_cut_off_between_two_members_is_refused(shards, tmp_path):
    """A tar without its end reads as a shorter one, and training would go on with fewer frames."""
    copy = shutil.copytree(shards, tmp_path / "copy")
    path = sorted((copy / "train").glob("*.tar"))[0]
    with tarfile.open(path) as tar:
        cut = tar.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ShardError, match=r"has 2 samples, expected \d as its manifest says"):
        windows(str(copy))
