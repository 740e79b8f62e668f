"""Run a teacher's trunk over frames and hand its maps to whoever writes them; nothing is kept in memory."""

import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from datamodules.batch import ImageBatch
from datamodules.cache_manifest import CacheIdentity
from datamodules.preprocessing import Preprocessing
from pl_distill.errors import ConfigError
from pl_distill.models.sam3 import load_preprocessing, load_sam3, trunk_map, trunk_settings, trunk_sha256

LIBRARIES = ("torch", "torchvision", "transformers")  # the resize and the trunk are theirs


class TeacherCacheModule(LightningModule):
    """SAM 3's trunk for `pl-distill predict`; the callback `FeatureCacheWriter` stores what it gives.

    Args:
        teacher: The SAM 3, a folder or hub name. Its trunk is loaded in float32; ``--trainer.precision`` decides in
            which type it computes.
    """

    def __init__(self, teacher: str) -> None:
        super().__init__()
        self.teacher = teacher
        self.sink: Callable[[ImageBatch, Tensor], None] | None = None
        """Takes a batch and its maps (B, C, h, w); whoever stores them sets it."""
        self._trunk_sha256 = ""

    def setup(self, stage: str) -> None:
        """Read what happens to a picture before the teacher sees it."""
        self._preprocessing = load_preprocessing(self.teacher)

    def configure_model(self) -> None:
        """Load the trunk and hash it, before Lightning casts it to the precision of the run."""
        if not hasattr(self, "model"):
            model = load_sam3(self.teacher)
            _keep_trunk(model)
            self._trunk_sha256 = trunk_sha256(model)
            self.model = model.requires_grad_(False)

    @property
    def preprocessing(self) -> Preprocessing:
        """What happens to a picture before the teacher sees it."""
        return self._preprocessing

    @property
    def identity(self) -> CacheIdentity:
        """What decides the values of the maps."""
        return CacheIdentity(
            trunk_sha256=self._trunk_sha256,
            preprocessing=self.preprocessing.describe(),
            precision=str(self.trainer.precision),
            attention=str(self.model.config.detector_config.vision_config.backbone_config._attn_implementation),
            libraries={name: version(name) for name in LIBRARIES},
            teacher=self.teacher,
            trunk_settings=trunk_settings(self.model.config),
        )

    def on_predict_start(self) -> None:
        """See that somebody takes the maps, before hours are spent on them.

        Raises:
            ConfigError: Nobody does.
        """
        if self.sink is None:
            raise ConfigError(
                "trainer.callbacks",
                "names nobody who stores the maps",
                "callbacks.feature_cache_writer.FeatureCacheWriter",
                "Put it there; in a second --config, `callbacks+:` adds to the list where `callbacks:` replaces it.",
            )
        warnings.filterwarnings("ignore", "predict returned None")  # on purpose: Lightning keeps what is returned

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures (B, 3, S, S) to trunk maps (B, C, h, w)."""
        return trunk_map(self.model, images)

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Give the maps of a batch away; returns None, since Lightning would keep 10.6 MB a frame."""
        assert self.sink is not None
        self.sink(batch, self(batch["image"]))


def _keep_trunk(model: Any) -> None:
    """Drop all of a `Sam3VideoModel` but what `trunk_map` and `trunk_sha256` read."""
    for kept in ("detector_model", "vision_encoder", "backbone"):
        for name, _ in list(model.named_children()):
            if name != kept:
                setattr(model, name, None)
        model = getattr(model, kept)
