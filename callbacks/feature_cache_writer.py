"""Stores the teacher's maps while `pl-distill predict` runs, one feature shard for each image shard."""

import sys
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from datamodules.background import BackgroundQueue
from datamodules.batch import ImageBatch
from datamodules.cache_manifest import CacheIdentity
from datamodules.cache_progress import finish_cache
from datamodules.codec_basis import fit_basis
from datamodules.codecs import FLOAT16, Codec, require_float16_range
from datamodules.feature_cache import open_codec
from datamodules.feature_shard import FeatureShardWriter
from datamodules.teacher_images import TeacherImageDataModule
from pl_distill.errors import ConfigError
from pl_distill.modules.teacher_cache import TeacherCacheModule

BASIS_FRAMES = 64
BASIS_VECTORS = 32768  # 32 for each of SAM 3's channels; 128 MiB


class _Maps(NamedTuple):
    """Maps of one batch on their way to the disk: `values` is what the codec's `quantise` gave, (B, ...)."""

    shard: str
    keys: list[str]
    values: NDArray[Any]


class FeatureCacheWriter(Callback):
    """Write the maps of a `TeacherCacheModule` into the cache that the `TeacherImageDataModule` names.

    A thread writes; where the disk is slower than the teacher, the teacher waits and memory stays flat.
    A shard appears whole or not at all: a run that is killed loses the one in hand, and a rerun goes on with it. The
    process that finds no shard missing writes the cache's manifest.

    Args:
        queue_batches: Batches that may wait for the disk.

    Raises:
        ConfigError: `queue_batches` is not positive.
    """

    def __init__(self, queue_batches: int = 4) -> None:
        if queue_batches < 1:
            raise ConfigError("queue_batches", f"is {queue_batches}", "at least 1", "Give a positive number.")
        self.queue_batches = queue_batches
        self._queue: BackgroundQueue[_Maps] | None = None
        self._codec: Codec = FLOAT16
        self._identity: CacheIdentity | None = None
        self._shard = ""  # whose maps the teacher is making
        self._writer: FeatureShardWriter | None = None  # the thread's
        self._left = 0  # maps that it still lacks
        self._data: TeacherImageDataModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Offer the module to take its maps.

        Raises:
            ConfigError: Module or data are of another kind.
        """
        data = cast(Any, trainer).datamodule
        if not isinstance(pl_module, TeacherCacheModule) or not isinstance(data, TeacherImageDataModule):
            raise ConfigError(
                "FeatureCacheWriter",
                f"is used with {type(pl_module).__name__} and {type(data).__name__}",
                "TeacherCacheModule and TeacherImageDataModule",
                "Take it out of trainer.callbacks, or start from the recipe cache/pen.yaml.",
            )
        self._data = data
        pl_module.sink = self.write

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the thread; fit the codec's basis first, where it needs one that the cache does not have yet.

        Raises:
            CacheError: The basis that is there is damaged, or was fitted for another teacher, preprocessing or views.
        """
        assert self._data is not None
        if self._data.codec == "pca-int8" and not self._data.identity.basis_sha256:
            self._fit(trainer, pl_module)
        self._identity = self._data.identity
        self._codec = open_codec(self._identity, self._data.cache)
        if self._identity.basis_sha256:  # also where it was fitted just now: another job may have been quicker
            self._data.check_basis()
        self._queue = BackgroundQueue(self._store, size=self.queue_batches, name="feature cache writer")

    def write(self, batch: ImageBatch, maps: Tensor) -> None:
        """Add the maps (B, C, h, w) of a batch; a shard that is complete with them is put in its place."""
        assert self._queue is not None
        require_float16_range(maps, batch["key"])
        values = self._codec.quantise(maps)
        if batch["shard"] != self._shard:
            self._queue.drain()  # or a kill could cost two shards: one in the queue, one in hand
            self._shard = batch["shard"]
        self._queue.put(_Maps(batch["shard"], batch["key"], values))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the disk; what the thread has raised comes out here at the latest."""
        if self._queue is not None:
            self._queue.drain()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what the teacher has made, and delete the shard in hand."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Delete a shard that was limited away; write the manifest if no other job has shards to make."""
        self._stop()
        assert self._data is not None
        # No barrier: shares may end hours apart, and it gives up after half an hour. The command waits for processes.
        manifest = finish_cache(self._data.cache, self._data.images, self._data.splits)
        said = f"{self._data.cache} is not finished: another rank, job or run has shards to make"
        if manifest is not None:
            said = f"{self._data.cache} holds the maps of {manifest.samples} frames, {manifest.bytes / 2**30:.3f} GiB"
        tqdm.write(said, file=sys.stderr)  # on whatever rank ends last

    def _store(self, maps: _Maps) -> None:
        assert self._data is not None
        assert self._identity is not None
        if self._writer is None or self._writer.file != maps.shard:
            self._abandon()
            image, views = self._data.image_shard(maps.shard)
            self._writer = FeatureShardWriter(
                self._data.cache,
                image.file,
                samples=image.samples,
                image_sha256=image.sha256,
                identity=self._identity,
                codec=self._codec,
                views=views,
            )
            self._left = image.samples * views
        for key, values in zip(maps.keys, maps.values, strict=True):
            self._writer.append(key, values)
        self._left -= len(maps.keys)
        if self._left == 0:
            self._writer.commit()
            self._writer = None

    def _fit(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._data is not None
        kept = []
        for pictures in self._data.sample(BASIS_FRAMES):
            images = trainer.precision_plugin.convert_input(pictures.to(pl_module.device))
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                maps = pl_module(images)
            vectors = maps.flatten(2).transpose(1, 2)  # (B, h*w, C)
            stride = max(1, vectors.shape[1] * BASIS_FRAMES // BASIS_VECTORS)
            kept.append(vectors[:, ::stride].float().cpu())
        basis = fit_basis(torch.cat(kept)).save(self._data.cache, self._data.identity)
        rank_zero_info(f"fitted a basis on {sum(map(len, kept))} frames; its step is {basis.step:.3f}")

    def _stop(self) -> None:
        if self._queue is not None:
            self._queue.close()
            self._queue = None
        self._shard = ""
        self._abandon()

    def _abandon(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
