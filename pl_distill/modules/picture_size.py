"""Whether the labelled windows have the size that a SAM 3 takes, before its first step."""

from typing import Any

from lightning.pytorch import Trainer

from datamodules.tracking import TrackingDataModule
from pl_distill.errors import ConfigError
from pl_distill.models.sam3_config import Sam3Geometry


def check_picture_size(trainer: Trainer, sam3: Any, source: str) -> None:
    """Compare image_size and mask_size of the data with a model's.

    Args:
        trainer: Whose data are asked, where they are a `TrackingDataModule`.
        sam3: `transformers.Sam3VideoModel`.
        source: Where it came from.

    Raises:
        ConfigError: One is another.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, TrackingDataModule):
        return
    geometry = Sam3Geometry.of(sam3.config)
    takes = {"image_size": geometry.image_size, "mask_size": geometry.mask_size}
    given = {"image_size": data.preprocessing.size, "mask_size": data.mask_size}
    wrong = [name for name in takes if given[name] != takes[name]]
    if wrong:
        raise ConfigError(
            f"data.{wrong[0]}",
            f"is {given[wrong[0]]}",
            f"{takes[wrong[0]]}, which {source} takes",
            f"Give {' '.join(f'--data.{name} {size}' for name, size in takes.items())}.",
        )
