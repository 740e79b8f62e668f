from types import SimpleNamespace

import pytest
import torch

from datamodules.cache_manifest import CacheIdentity, FeatureShardEntry, write_ledger
from datamodules.errors import CacheError, ShardError, UserError
from datamodules.preprocessing import Preprocessing
from datamodules.shards import write_shards
from datamodules.splits import load_split
from datamodules.teacher_images import TeacherImageDataModule

PREPROCESSING = Preprocessing(32)
MADE_BY = CacheIdentity("abc", PREPROCESSING.describe(), "32-true", "sdpa", {"torch": "2.15"}, "runs/teacher")


@pytest.fixture
def pen(tmp_path, make_clip):
    """Eight training frames in shards of 3, 3 and 2; two validation frames in one shard."""
    clips = [make_clip("2026_01_01/000000", frames=8), make_clip("2026_01_21/000000", frames=2)]
    return write_shards(clips, load_split("pen"), tmp_path / "pen", samples_per_shard=3)


def _data(pen, rank: int = 0, ranks: int = 1, **options) -> TeacherImageDataModule:
    data = TeacherImageDataModule(str(pen.folder), **options)
    teacher = SimpleNamespace(preprocessing=PREPROCESSING, identity=MADE_BY)
    data.trainer = SimpleNamespace(lightning_module=teacher, global_rank=rank, world_size=ranks)
    data.setup("predict")
    return data


def _finish(pen, number: int, sha256: str | None = None) -> None:
    image = pen.splits["train"][number]
    cache = pen.folder.with_name("pen-features")
    (cache / image.file).parent.mkdir(parents=True, exist_ok=True)
    (cache / image.file).write_bytes(b"1234")
    write_ledger(
        cache, FeatureShardEntry(image.file, "f" * 64, 4, image.samples, (1, 2, 2), sha256 or image.sha256), MADE_BY
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_hold_every_frame_in_order_and_never_two_shards(pen, workers, number_of):
    batches = list(_data(pen, batch_size=2, num_workers=workers).predict_dataloader())
    assert [(batch["shard"][-10:-4], len(batch["key"])) for batch in batches] == [
        ("000000", 2), ("000000", 1), ("000001", 2), ("000001", 1), ("000002", 2), ("000000", 2),
    ]  # fmt: skip
    keys = [key for batch in batches for key in batch["key"]]
    assert keys == [f"2026_01_01-000000-f{n:06d}" for n in range(8)] + [f"2026_01_21-000000-f{n:06d}" for n in (0, 1)]
    images = torch.cat([batch["image"] for batch in batches])
    assert images.shape == (10, 3, 32, 32)
    pixels = ((images * 0.5 + 0.5) * 255).permute(0, 2, 3, 1).numpy()
    assert [number_of(image) for image in pixels] == [*range(8), 0, 1]


def test_a_run_that_stopped_goes_on_with_the_next_shard(pen):
    _finish(pen, 1)
    shards = [batch["shard"] for batch in _data(pen, batch_size=3).predict_dataloader()]
    assert shards == ["train/train-000000.tar", "train/train-000002.tar", "val/val-000000.tar"]


def test_ranks_and_array_tasks_read_fixed_shards_also_when_some_are_done(pen):
    def files():
        return [
            [b["shard"] for b in _data(pen, rank, 2, batch_size=3, task=task, tasks=2).predict_dataloader()]
            for task in (0, 1)
            for rank in (0, 1)
        ]

    assert files() == [[f"train/train-{n:06d}.tar"] for n in range(3)] + [["val/val-000000.tar"]]
    _finish(pen, 0)
    assert files()[0] == []
    assert files()[1:] == [["train/train-000001.tar"], ["train/train-000002.tar"], ["val/val-000000.tar"]]


def test_maps_of_other_images_are_refused_before_any_frame_is_read(pen, refused):
    _finish(pen, 2, sha256="0" * 64)
    refused(CacheError, _data(pen).predict_dataloader, where="pen-features/train/train-000002.tar", found="0" * 64)


def test_splits_without_frames_are_refused(pen, refused):
    refused(ShardError, lambda: _data(pen, splits=("test",)), where=pen.folder, found="no samples in test")


def test_a_shard_that_is_not_the_manifests_is_refused(pen, refused):
    first, second = (pen.path(shard) for shard in pen.splits["train"][1:])
    first.write_bytes(second.read_bytes())
    loader = _data(pen).predict_dataloader()
    refused(ShardError, lambda: list(loader), where=first, found="has 2 samples", expected="3")


@pytest.mark.parametrize(
    ("options", "where", "found"),
    [
        ({"task": 2, "tasks": 2}, "data.task", "is 2"),
        ({"task": -1}, "data.task", "is -1"),
        ({"batch_size": 0}, "data.batch_size", "is 0"),
        ({"num_workers": -1}, "data.num_workers", "is -1"),
    ],
)
def test_numbers_out_of_range_are_refused(pen, options, where, found, refused):
    refused(UserError, lambda: TeacherImageDataModule(str(pen.folder), **options), where=where, found=found)


def test_maps_are_written_to_a_disk_only(refused):
    url = "https://host/pen"
    refused(UserError, lambda: TeacherImageDataModule(url), where="data.cache", found="is missing", fix="Give one")
    refused(UserError, lambda: TeacherImageDataModule("pen", url), where="data.cache", found=f"is {url}")


def test_maps_do_not_take_the_place_of_the_pictures(pen, refused):
    same = str(pen.folder / ".." / pen.folder.name)
    refused(UserError, lambda: TeacherImageDataModule(str(pen.folder), same), where="data.cache", found="the pictures")
