"""Frames for the teacher, shard by shard: each process reads its own shards, and of these the ones without maps.

A batch never crosses from one shard into the next: a shard's maps then do not depend on where an earlier run stopped.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from datamodules.batch import ImageBatch
from datamodules.cache_manifest import CacheIdentity
from datamodules.cache_progress import default_cache, owned_by, unfinished_shards
from datamodules.errors import ShardError, UserError
from datamodules.preprocessing import Preprocessing
from datamodules.shard_index import IndexedShard
from datamodules.shard_manifest import ShardEntry, ShardManifest
from datamodules.splits import Part


class Teacher(Protocol):
    """What the module that runs the teacher tells about it."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What happens to a picture before the teacher sees it."""

    @property
    def identity(self) -> CacheIdentity:
        """What decides the values of its maps."""


class TeacherImages(Dataset[ImageBatch]):
    """Batches of preprocessed frames, by number; each is of one shard, the last one of a shard may be smaller.

    Args:
        folder: Of the image shards.
        shards: Which of them, in order.
        preprocessing: The teacher's.
        batch_size: The most frames of a batch.
    """

    def __init__(
        self, folder: Path, shards: Sequence[ShardEntry], preprocessing: Preprocessing, *, batch_size: int
    ) -> None:
        self.folder = folder
        self.preprocessing = preprocessing
        self._batches = [
            (shard, range(first, min(first + batch_size, shard.samples)))
            for shard in shards
            for first in range(0, shard.samples, batch_size)
        ]
        self._open: tuple[str, IndexedShard] | None = None  # the one in hand

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> ImageBatch:
        shard, samples = self._batches[number]
        images = self._shard(shard)
        return {
            "key": [images.keys[sample] for sample in samples],
            "shard": shard.file,
            "image": torch.stack([self.preprocessing(images.image(sample)) for sample in samples]),
        }

    def _shard(self, entry: ShardEntry) -> IndexedShard:
        if self._open is None or self._open[0] != entry.file:
            images = IndexedShard(self.folder / entry.file)
            if len(images) != entry.samples:
                raise ShardError(
                    images.path,
                    f"has {len(images)} samples",
                    f"{entry.samples} as its manifest says",
                    "Copy this shard again, or write the shards again.",
                )
            self._open = (entry.file, images)
        return self._open[1]


class TeacherImageDataModule(LightningDataModule):
    """The frames whose maps a cache still lacks.

    Args:
        shards: Folder of image shards, as `pl-distill data shards` writes it.
        cache: Folder of the feature shards; by default beside the images, ``pen`` -> ``pen-features``.
        splits: Which parts to cache.
        batch_size: Frames per forward pass of the teacher.
        num_workers: Processes per rank that decode images.
        task: Number of this job among several that fill one cache, from 0: ``$SLURM_ARRAY_TASK_ID``.
        tasks: How many such jobs there are: ``$SLURM_ARRAY_TASK_COUNT``. Each owns a fixed part of the shards.

    Raises:
        UserError: A number is out of its range.
    """

    def __init__(
        self,
        shards: str,
        cache: str | None = None,
        splits: tuple[Part, ...] = ("train", "val"),
        batch_size: int = 1,
        num_workers: int = 0,
        task: int = 0,
        tasks: int = 1,
    ) -> None:
        super().__init__()
        if not 0 <= task < tasks:
            raise UserError(
                "data.task", f"is {task}", f"0 to data.tasks - 1, which is {tasks - 1}", "Number the jobs from 0."
            )
        if batch_size < 1:
            raise UserError("data.batch_size", f"is {batch_size}", "at least 1", "Give a positive number.")
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a rank may have nothing left to do
        self.cache = Path(cache) if cache is not None else default_cache(shards)
        self.splits = splits
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.task = task
        self.tasks = tasks
        self._folder = Path(shards)
        self._images: ShardManifest | None = None

    @property
    def images(self) -> ShardManifest:
        """The image shards.

        Raises:
            ShardError: There are none.
        """
        if self._images is None:
            images = ShardManifest.load(self._folder)
            if not any(images.splits[part] for part in self.splits):
                raise ShardError(
                    self._folder,
                    f"has no samples in {', '.join(self.splits)}",
                    "some frames to cache",
                    "Name other splits with --data.splits, or write the shards with another split.",
                )
            self._images = images
        return self._images

    def setup(self, stage: str) -> None:
        """Read the manifest of the images, before the teacher is loaded: a wrong path shows at once."""
        _ = self.images

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """Serve what this rank still has to do.

        Raises:
            CacheError: The cache holds maps of another teacher, preprocessing or image set.
        """
        if self.trainer is None:
            raise RuntimeError("TeacherImageDataModule needs the trainer whose module is the teacher")
        teacher = cast(Teacher, self.trainer.lightning_module)
        worker = self.task * self.trainer.world_size + self.trainer.global_rank
        own = owned_by(worker, self.tasks * self.trainer.world_size, self.images, self.splits)
        missing = unfinished_shards(self.cache, self.images, self.splits, teacher.identity)
        mine = [shard for shard in missing if shard.file in own]
        if len(mine) < len(own):
            rank_zero_info(f"{len(own) - len(mine)} of {len(own)} shards are in {self.cache} already")
        if not missing:  # nor is an empty loader worth Lightning's warning then
            warnings.filterwarnings("ignore", "Total length of `DataLoader` across ranks is zero")
        dataset = TeacherImages(self._folder, mine, teacher.preprocessing, batch_size=self.batch_size)
        # A DistributedSampler of one replica: Lightning puts its own, which would deal out batches anew, where none is.
        sampler: DistributedSampler[ImageBatch] = DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=False)
        return DataLoader(
            dataset,
            batch_size=None,  # an item is a batch
            sampler=sampler,
            num_workers=self.num_workers if mine else 0,
            pin_memory=torch.cuda.is_available(),
        )
