"""Stores the teacher's maps while `pl-distill predict` runs, one feature shard for each image shard."""

from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.batch import ImageBatch
from datamodules.cache_progress import finish_cache
from datamodules.feature_shard import FeatureShardWriter, to_float16
from datamodules.teacher_images import TeacherImageDataModule
from pl_distill.errors import ConfigError
from pl_distill.modules.teacher_cache import TeacherCacheModule


class FeatureCacheWriter(Callback):
    """Write the maps of a `TeacherCacheModule` into the cache that the `TeacherImageDataModule` names.

    A shard appears whole or not at all: a run that is killed loses the one in hand, and a rerun goes on with it. The
    process that finds no shard missing writes the cache's manifest.
    """

    def __init__(self) -> None:
        self._writer: FeatureShardWriter | None = None
        self._left = 0  # samples of the shard in hand
        self._data: TeacherImageDataModule | None = None
        self._module: TeacherCacheModule | None = None

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
        self._data, self._module = data, pl_module
        pl_module.sink = self.write

    def write(self, batch: ImageBatch, maps: Tensor) -> None:
        """Add the maps (B, C, h, w) of a batch; a shard that is complete with them is put in its place."""
        assert self._data is not None
        assert self._module is not None
        if self._writer is None or self._writer.file != batch["shard"]:
            self._abandon()
            image = next(one for part in self._data.splits for one in self._data.images.splits[part]
                         if one.file == batch["shard"])  # fmt: skip
            self._writer = FeatureShardWriter(
                self._data.cache,
                image.file,
                samples=image.samples,
                image_sha256=image.sha256,
                identity=self._module.identity,
            )
            self._left = image.samples
        for key, feature_map in zip(batch["key"], to_float16(maps, batch["key"]), strict=True):
            self._writer.append(key, feature_map)
        self._left -= len(batch["key"])
        if self._left == 0:
            self._writer.commit()
            self._writer = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Delete the shard in hand."""
        self._abandon()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Delete a shard that was limited away; write the manifest if no other job has shards to make."""
        self._abandon()
        trainer.strategy.barrier("feature cache")  # so that rank 0, which reports, sees what the others made
        assert self._data is not None
        manifest = finish_cache(self._data.cache, self._data.images, self._data.splits)
        if manifest is None:
            rank_zero_info(f"{self._data.cache} is not finished: another job, or another run, has shards to make")
        else:
            size_gib = manifest.bytes / 2**30
            rank_zero_info(f"{self._data.cache} holds {manifest.samples} maps, {size_gib:.3f} GiB")

    def _abandon(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
