"""Frames for the teacher, shard by shard: each process reads its own shards, and of these the ones without maps.

Training frames may be shown in several views (`datamodules.cached_views`), one after the other.

A batch never crosses from one shard into the next: a shard's maps then do not depend on where an earlier run stopped.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from datamodules.batch import ImageBatch
from datamodules.cache_manifest import CacheIdentity, read_ledger
from datamodules.cache_progress import default_cache, owned_by, unfinished_shards
from datamodules.cached_views import CachedViews
from datamodules.codec_basis import BASIS, basis_identity, basis_sha256
from datamodules.codecs import CodecName
from datamodules.errors import CacheError, ShardError, UserError
from datamodules.image_shards import ImageShards
from datamodules.local_copies import HeldCopy
from datamodules.preprocessing import Preprocessing
from datamodules.remote import COPIES, LocalCopies, is_url
from datamodules.resumption import check_workers, start_method
from datamodules.shard_index import IndexedShard, open_shard
from datamodules.shard_manifest import ShardEntry, ShardManifest
from datamodules.splits import Part

WHOLE = CachedViews()


class Teacher(Protocol):
    """What the module that runs the teacher tells about it."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What happens to a picture before the teacher sees it."""

    @property
    def identity(self) -> CacheIdentity:
        """What decides the values of its maps."""


class TeacherImages(Dataset[ImageBatch]):
    """Batches of preprocessed pictures, by number; each is of one shard, the last one of a shard may be smaller.

    Args:
        images: The image shards.
        shards: Which of them, in order, and how many views of each of its frames.
        preprocessing: The teacher's.
        batch_size: The most pictures of a batch.
        views: The views.
    """

    def __init__(
        self,
        images: ImageShards,
        shards: Sequence[tuple[ShardEntry, int]],
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        views: CachedViews = WHOLE,
    ) -> None:
        self.preprocessing = preprocessing
        self._images = images
        self._views = views
        self._batches = [
            (shard, count, range(first, min(first + batch_size, shard.samples * count)))
            for shard, count in shards
            for first in range(0, shard.samples * count, batch_size)
        ]
        self._open: tuple[str, IndexedShard, HeldCopy] | None = None  # the one in hand

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> ImageBatch:
        shard, count, pictures = self._batches[number]
        return {
            "key": [self._shard(shard).keys[picture // count] for picture in pictures],
            "shard": shard.file,
            "image": torch.stack([self.picture(shard, *divmod(picture, count)) for picture in pictures]),
        }

    def picture(self, shard: ShardEntry, sample: int, view: int) -> Tensor:
        """Return one view of one frame, (3, S, S)."""
        images = self._shard(shard)
        return self.preprocessing(self._views.view(images.keys[sample], view).of_image(images.image(sample)))

    def _shard(self, entry: ShardEntry) -> IndexedShard:
        if self._open is None or self._open[0] != entry.file:
            if self._open is not None:
                self._open[2].close()
            copy = self._images.hold(entry)
            self._open = (entry.file, open_shard(copy.path, entry.samples), copy)
        return self._open[1]


class TeacherImageDataModule(LightningDataModule):
    """The frames whose maps a cache still lacks.

    Args:
        shards: Folder of image shards, as `pl-distill data shards` writes it; a path or an https, s3 or gs URL.
        cache: Folder of the feature shards, on a disk; by default beside the images, ``pen`` -> ``pen-features``.
        splits: Which parts to cache.
        batch_size: Frames per forward pass of the teacher.
        num_workers: Processes per rank that decode images.
        task: Number of this job among several that fill one cache, from 0: ``$SLURM_ARRAY_TASK_ID``.
        tasks: How many such jobs there are: ``$SLURM_ARRAY_TASK_COUNT``. Each owns a fixed part of the shards.
        codec: How maps are stored: ``float16``; ``int8``, half the size; ``pca-int8``, about a tenth, cosine 0.99.
        views: Crops and mirror images of each training frame that are cached beside the whole.
        copies: Where copies of shards behind a URL lie, and how much room they may take.

    Raises:
        UserError: A number is out of its range, or no folder for the maps is named.
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
        codec: CodecName = "float16",
        views: CachedViews = WHOLE,
        copies: LocalCopies = COPIES,
    ) -> None:
        super().__init__()
        if not 0 <= task < tasks:
            raise UserError(
                "data.task", f"is {task}", f"0 to data.tasks - 1, which is {tasks - 1}", "Number the jobs from 0."
            )
        check_workers(num_workers)
        if batch_size < 1:
            raise UserError("data.batch_size", f"is {batch_size}", "at least 1", "Give a positive number.")
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a rank may have nothing left to do
        if is_url(cache if cache is not None else shards):
            found = f"is {cache}" if cache is not None else f"is missing, and beside {shards} nothing can be written"
            raise UserError("data.cache", found, "a folder on a disk", "Give one, and copy it to the store afterwards.")
        self.cache = Path(cache) if cache is not None else default_cache(shards)
        if not is_url(shards) and self.cache.resolve() == Path(shards).resolve():
            found = f"is {self.cache}, the folder of the pictures"  # whose shards have the names of those of the maps
            raise UserError("data.cache", found, "another folder", "Give one, or leave it out.")
        self.splits = splits
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.task = task
        self.tasks = tasks
        self.codec = codec
        self.views = views
        self.shards = shards
        self.copies = copies
        self._images: ImageShards | None = None

    @property
    def images(self) -> ShardManifest:
        """The image shards.

        Raises:
            ShardError: There are none.
            RemoteError: The URL cannot be read.
        """
        return self._opened().manifest

    def setup(self, stage: str) -> None:
        """Read the manifest of the images, before the teacher is loaded: a wrong path shows at once."""
        _ = self.images

    @property
    def teacher(self) -> Teacher:
        """The module that the trainer runs."""
        if self.trainer is None:
            raise RuntimeError("TeacherImageDataModule needs the trainer whose module is the teacher")
        return cast(Teacher, self.trainer.lightning_module)

    @property
    def identity(self) -> CacheIdentity:
        """Who makes which maps, and how they are stored."""
        basis = basis_sha256(self.cache) if self.codec == "pca-int8" else ""
        return replace(self.teacher.identity, codec=self.codec, basis_sha256=basis, views=self.views.describe())

    def check_basis(self) -> None:
        """Refuse a basis that a run with another teacher has left behind before it had finished a shard.

        One that does not say whose it is was fitted by an earlier version. It is trusted where a shard is finished:
        `predict_dataloader` has compared who made that, and along which basis.

        Raises:
            CacheError: It was fitted on other maps than those that are about to be made, or does not say.
        """
        path, fitted_on = self.cache / BASIS, basis_identity(self.cache)
        if fitted_on is not None:
            fitted_on.require(replace(self.identity, basis_sha256=""), path, same_libraries=False)
        elif not any(read_ledger(self.cache, image.file) for shards in self.images.splits.values() for image in shards):
            fix = "Delete it and run `pl-distill predict` again: a basis is fitted anew."
            raise CacheError(path, "does not say on which teacher's maps it was fitted", "a basis of this teacher", fix)

    def image_shard(self, file: str) -> tuple[ShardEntry, int]:
        """Return an image shard by its file, and how many views each of its frames has."""
        return next(one for one in self._shards() if one[0].file == file)

    def sample(self, frames: int) -> Iterator[Tensor]:
        """Give pictures (B, 3, S, S) from all over the splits, of all views: as many `frames`, or all there are."""
        shards = self._shards()
        images = TeacherImages(self._opened(), shards, self.teacher.preprocessing, batch_size=1, views=self.views)
        ends = np.cumsum([shard.samples for shard, _ in shards])
        total = int(ends[-1])
        chosen = np.sort(np.random.default_rng(0).choice(total, min(frames, total), replace=False))
        pictures = []
        for position, number in enumerate(chosen.tolist()):
            index = int(np.searchsorted(ends, number, side="right"))
            shard, count = shards[index]
            pictures.append(images.picture(shard, number - int(ends[index]) + shard.samples, position % count))
            if len(pictures) == self.batch_size or position == len(chosen) - 1:
                yield torch.stack(pictures)
                pictures = []

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """Serve what this rank still has to do.

        Raises:
            CacheError: The cache holds maps of another teacher, preprocessing, codec, views or image set.
        """
        teacher = self.teacher
        ranks, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        own = owned_by(self.task * ranks + rank, self.tasks * ranks, self.images, self.splits)
        missing = unfinished_shards(self.cache, self.images, self.splits, self.identity)
        mine = [self.image_shard(shard.file) for shard in missing if shard.file in own]
        if len(mine) < len(own):
            rank_zero_info(f"{len(own) - len(mine)} of {len(own)} shards are in {self.cache} already")
        if not missing:  # nor is an empty loader worth Lightning's warning then
            warnings.filterwarnings("ignore", "Total length of `DataLoader` across ranks is zero")
        images = self._opened()
        dataset = TeacherImages(images, mine, teacher.preprocessing, batch_size=self.batch_size, views=self.views)
        # A DistributedSampler of one replica: Lightning puts its own, which would deal out batches anew, where none is.
        sampler: DistributedSampler[ImageBatch] = DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=False)
        workers = self.num_workers if mine else 0
        return DataLoader(
            dataset,
            batch_size=None,  # an item is a batch
            sampler=sampler,
            num_workers=workers,
            multiprocessing_context=start_method(workers),
            pin_memory=torch.cuda.is_available(),
        )

    def _opened(self) -> ImageShards:
        if self._images is None:
            images = ImageShards(self.shards, self.copies)
            if not any(images.manifest.splits[part] for part in self.splits):
                raise ShardError(
                    self.shards,
                    f"has no samples in {', '.join(self.splits)}",
                    "some frames to cache",
                    "Name other splits with --data.splits, or write the shards with another split.",
                )
            self._images = images
        return self._images

    def _shards(self) -> list[tuple[ShardEntry, int]]:
        return [(shard, self.views.of_part(part)) for part in self.splits for shard in self.images.splits[part]]
