"""Images and the teacher's cached maps of them, for the training of a student; the teacher is not loaded.

Images are read from their shards and maps from the feature shards beside them, by sample: no frame is paired with
another frame's map, every rank has as many batches, and a run that stops in mid-epoch goes on where it was.

Augmentation never moves a map: a view is one that the teacher has seen, too, and colour and blur are the student's.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.appearance import Appearance
from datamodules.batch import DistillationBatch
from datamodules.cached_views import CachedViews
from datamodules.codecs import Map
from datamodules.errors import CacheError, ShardError, UserError
from datamodules.feature_shard import FeatureShard
from datamodules.preprocessing import Preprocessing
from datamodules.remote import COPIES, LocalCopies
from datamodules.resumption import ResumableDataLoader, resume_point
from datamodules.sampling import TicketSampler
from datamodules.shard_index import IndexedShard, open_shard
from datamodules.shard_pairs import TrainingShards, cache_beside
from datamodules.splits import Part


class CachedSample(TypedDict):
    """One frame: its key, its image (3, H, W) float32 and the teacher's map (C, h, w) float16, read-only."""

    key: str
    image: Tensor
    teacher_map: Map


class CachedSamples(Dataset[CachedSample]):
    """The samples of some shards by number, counted through the shards in order.

    Args:
        images: The image shards, opened when they are first read.
        sizes: Samples in each.
        maps: The feature shard of each.
        preprocessing: That of the teacher.
        views: Those that are cached; one is drawn for each sample and epoch.
        appearance: What happens to the student's picture besides.
        seed: Of both; an index beyond the number of samples is one of a later epoch.
        fetch: Called with the number of a shard before it is read, to bring it here; returns that of a shard whose
            index is let go for it, since an archive's take gigabytes in each worker. None: all stay.
    """

    def __init__(
        self,
        images: Sequence[Path],
        sizes: Sequence[int],
        maps: Sequence[FeatureShard],
        preprocessing: Preprocessing,
        views: CachedViews,
        appearance: Appearance | None = None,
        seed: int = 0,
        fetch: Callable[[int], int | None] | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.views = views
        self.appearance = appearance
        self.seed = seed
        self._fetch = fetch
        self._paths = list(images)
        self._images: dict[int, IndexedShard] = {}
        self._maps = list(maps)
        self._sizes = list(sizes)
        self._ends = np.cumsum(sizes)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, ticket: int) -> CachedSample:
        epoch, number = divmod(ticket, len(self))
        shard = int(np.searchsorted(self._ends, number, side="right"))
        sample = number - (int(self._ends[shard - 1]) if shard else 0)
        if self._fetch is not None and (unused := self._fetch(shard)) is not None:
            self._images.pop(unused, None)
        if shard not in self._images:
            self._images[shard] = open_shard(self._paths[shard], self._sizes[shard])
        images, maps = self._images[shard], self._maps[shard]
        rng = np.random.default_rng([self.seed, epoch, number])
        view = int(rng.integers(maps.views))
        key, teacher_map = maps.map(sample, view)
        if images.keys[sample] != key:
            raise CacheError(
                f"{maps.path}, map {sample}",
                f"is that of {key}",
                f"{images.keys[sample]}, the sample of that number in {images.path}",
                "Give another cache folder and run `pl-distill predict` again.",
            )
        picture = self.views.view(key, view).of_image(images.image(sample))
        if self.appearance is not None:
            picture = self.appearance(picture, rng)
        return {"key": key, "image": self.preprocessing(picture), "teacher_map": teacher_map}


def collate(samples: Sequence[CachedSample]) -> DistillationBatch:
    """Join samples; maps stay float16 between processes and on the way to the device, see `DistillationDataModule`."""
    return {
        "key": [sample["key"] for sample in samples],
        "image": torch.stack([sample["image"] for sample in samples]),
        "teacher_map": torch.from_numpy(np.stack([sample["teacher_map"] for sample in samples])),
    }


class DistillationDataModule(LightningDataModule):
    """Frames of the training and validation splits with the maps that `pl-distill predict` has cached.

    Args:
        shards: Folder of image shards, as `pl-distill data shards` writes it; a path or an https, s3 or gs URL.
        cache: Folder of feature shards, likewise; by default beside the images, ``pen`` -> ``pen-features``.
        batch_size: Frames per step and rank.
        num_workers: Processes per rank that read and decode.
        seed: Of the order of the samples.
        block_shards: Shards that are open at a time; more of them mix better, fewer stay in the page cache.
        appearance: Random colour and blur for the student's picture in training; the teacher has seen it without.
            Crops and mirror images come with the cache: ``pl-distill predict --data.views.count``.
        copies: Where copies of shards behind URLs lie, and how much room they may take.

    Raises:
        UserError: A number is not positive.
    """

    def __init__(
        self,
        shards: str,
        cache: str | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        block_shards: int = 16,
        appearance: Appearance | None = None,
        copies: LocalCopies = COPIES,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("block_shards", block_shards)):
            if value < 1:
                raise UserError(f"data.{name}", f"is {value}", "at least 1", "Give a positive number.")
        self.shards = shards
        self.cache = cache if cache is not None else cache_beside(shards)
        self.copies = copies
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.block_shards = block_shards
        self.appearance = appearance
        self._opened: TrainingShards | None = None

    def setup(self, stage: str) -> None:
        """Open shards and cache.

        Raises:
            ShardError: The image shards are missing or damaged, or have nothing to validate on where a fit would.
            CacheError: The cache is unfinished or was made from other images.
        """
        images = self._open().images
        validates = self.trainer is not None and self.trainer.limit_val_batches != 0
        if stage == "fit" and validates and not images.num_samples("val"):
            raise ShardError(
                self.shards,
                "has no frame in val",
                "at least one, by which best.ckpt is chosen",
                "Add a day of the split's val part and write the shards again, or give --trainer.limit_val_batches 0.",
            )

    @property
    def teacher_trunk_sha256(self) -> str:
        """Hash of the trunk that made the cache."""
        return self._open().cache.manifest.identity.trunk_sha256

    @property
    def trunk_settings(self) -> Mapping[str, Any]:
        """What that trunk computed beside what its tensors tell; empty where the cache does not say."""
        return self._open().cache.manifest.identity.trunk_settings

    @property
    def data_identity(self) -> dict[str, Any]:
        """The training pictures and the teacher of the maps, as plain values that do not depend on where they lie.

        Left out, as readers of a cache leave it out, is where the teacher came from and which libraries it ran with.
        """
        opened = self._open()
        hashes = "".join(shard.sha256 for shard in opened.images.splits["train"])
        made = asdict(opened.cache.manifest.identity)
        kept = {name: value for name, value in made.items() if name not in ("teacher", "libraries")}
        return {"train_shards_sha256": hashlib.sha256(hashes.encode()).hexdigest(), **kept}

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of each cached map."""
        return self._open().cache.manifest.shape

    @property
    def preprocessing(self) -> Preprocessing:
        """What the teacher's pictures went through, and the student's do."""
        cache = self._open().cache
        return Preprocessing.from_description(cache.manifest.identity.preprocessing, str(cache.folder))

    @property
    def views(self) -> CachedViews:
        """The views in which the teacher saw each training frame."""
        cache = self._open().cache
        return CachedViews.from_description(cache.manifest.identity.views, str(cache.folder))

    def train_dataloader(self) -> ResumableDataLoader:
        """Shuffle the training split; a resumed epoch leaves out what was consumed."""
        loader = self._loader("train", training=True)
        if self.trainer is not None:
            loader.plan.resume(*resume_point(self.trainer))
        return loader

    def val_dataloader(self) -> ResumableDataLoader | list[Any]:
        """Go through the validation split in order; no loader where it is empty."""
        return self._loader("val", training=False) if self._open().images.splits["val"] else []

    def on_after_batch_transfer(self, batch: DistillationBatch, dataloader_idx: int) -> DistillationBatch:
        """Widen the maps to float32 on the device, so that half the bytes travel there."""
        return {**batch, "teacher_map": batch["teacher_map"].float()}

    def _open(self) -> TrainingShards:
        if self._opened is None:
            self._opened = TrainingShards(self.shards, self.cache, self.copies)
        return self._opened

    def _loader(self, part: Part, *, training: bool) -> ResumableDataLoader:
        opened = self._open()
        images = opened.images
        entries = images.splits[part]
        sizes = [entry.samples for entry in entries]
        if not sizes:
            raise CacheError(
                self.shards, f"has no samples in {part}", "some", "Write the shards with another split (--split)."
            )
        maps = opened.cache.shards(part)
        ranks, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)
        sampler = TicketSampler(
            sizes,
            batch_size=self.batch_size,
            rank=rank,
            ranks=ranks,
            seed=self.seed,
            training=training,
            block_shards=self.block_shards,
        )
        samples = CachedSamples(
            [images.path(entry) for entry in entries],
            sizes,
            maps,
            self.preprocessing,
            self.views,
            self.appearance if training else None,
            self.seed,
            opened.fetcher(part, maps, keep=2 * self.block_shards),
        )
        return ResumableDataLoader(
            samples,
            sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate,
        )
