"""Does a cache still say what the teacher says? The live teacher looks at some of its frames again.

It runs as `pl-distill predict` ran it: the same module, views, preprocessing and precision.
A peer's check runs the whole teacher again, as expensive as the export, and has no threshold
(github.com/SimonZeng7108/efficientsam3, ``--check-saved-embed``).
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import ImageBatch
from datamodules.cached_views import CachedViews
from datamodules.feature_cache import FeatureCache
from datamodules.image_shards import ImageShards
from datamodules.shard_manifest import ShardManifest
from datamodules.splits import Part
from datamodules.teacher_images import TeacherImages
from pl_distill.modules.teacher_cache import TeacherCacheModule


@dataclass(frozen=True)
class Agreement:
    """How well one cached map agrees with the live teacher's.

    Args:
        split: Where the frame is.
        key: Its name.
        view: Number of the view.
        cosine: Mean over locations of the cosine between channel vectors; NaN where the map holds NaN.
    """

    split: Part
    key: str
    view: int
    cosine: float


@dataclass(frozen=True)
class _Place:
    split: Part
    shard: int
    sample: int
    view: int


class _Chosen(Dataset[ImageBatch]):
    """Batches of one picture, at the places that were chosen."""

    def __init__(
        self, images: ShardManifest, places: list[_Place], views: CachedViews, module: TeacherCacheModule
    ) -> None:
        self._images, self._places, self._views, self._module = images, places, views, module
        self._pictures: TeacherImages | None = None

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> ImageBatch:
        if self._pictures is None:  # the preprocessing is known once the teacher is loaded
            images = ImageShards(self._images.folder)
            self._pictures = TeacherImages(images, [], self._module.preprocessing, batch_size=1, views=self._views)
        place = self._places[number]
        shard = self._images.splits[place.split][place.shard]
        picture = self._pictures.picture(shard, place.sample, place.view)
        return {"key": [str(number)], "shard": shard.file, "image": picture[None]}


class _Comparison(TeacherCacheModule):
    """The teacher, compared with the cache from its start on; nothing is computed for a cache of another teacher."""

    def __init__(self, teacher: str, cache: FeatureCache) -> None:
        super().__init__(teacher)
        self._cache = cache

    def on_predict_start(self) -> None:
        """Refuse a cache of another teacher.

        Raises:
            CacheError: It was made by another one, or in another way.
        """
        made = self._cache.manifest.identity
        live = replace(self.identity, codec=made.codec, basis_sha256=made.basis_sha256, views=made.views)
        made.require(live, self._cache.folder, same_libraries=False)
        super().on_predict_start()


def compare_with_teacher(
    cache: FeatureCache, images: ShardManifest, teacher: str, *, frames: int, accelerator: str = "auto"
) -> list[Agreement]:
    """Run the live teacher on frames from all over a cache, each in one of its views, the same in every call.

    Args:
        cache: The cache.
        images: The image shards it was made from.
        teacher: The SAM 3 that made it, a folder or hub name.
        frames: How many; all of them where there are fewer.
        accelerator: Lightning's name of the device.

    Raises:
        CacheError: The cache was made by another teacher, with other preprocessing, precision or attention kernel.
    """
    manifest = cache.manifest
    views = CachedViews.from_description(manifest.identity.views, str(cache.folder))
    shards = {split: cache.shards(split) for split in manifest.splits}
    rng = np.random.default_rng(0)
    every = [
        (split, number, sample)
        for split, maps in shards.items()
        for number, shard in enumerate(maps)
        for sample in range(len(shard))
    ]
    chosen = np.sort(rng.choice(len(every), min(frames, len(every)), replace=False)).tolist()
    places = [
        _Place(split, number, sample, int(rng.integers(shards[split][number].views)))
        for split, number, sample in (every[index] for index in chosen)
    ]
    found: list[Agreement] = []

    def compare(batch: ImageBatch, maps: Tensor) -> None:
        place = places[int(batch["key"][0])]
        key, stored = shards[place.split][place.shard].map(place.sample, place.view)
        cosine = F.cosine_similarity(torch.tensor(stored).float(), maps[0].float().cpu(), dim=0).mean()
        found.append(Agreement(place.split, key, place.view, float(cosine)))

    module = _Comparison(teacher, cache)
    module.sink = compare
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        precision=cast(Any, manifest.identity.precision),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[TQDMProgressBar()],
    )
    trainer.predict(module, DataLoader(_Chosen(images, places, views, module), batch_size=None))
    return found
