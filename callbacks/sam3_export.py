"""Write the SAM 3 in training as a folder that `load_sam3` reads: a later stage or an evaluation starts from it."""

from pathlib import Path
from typing import Protocol, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from datamodules.files import recover_directory


class Exportable(Protocol):
    """A module that can write its model."""

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write into a folder and return it."""
        ...


class Sam3Export(Callback):
    """Writes the model after every validation of a fit and at its end; the folder always holds the latest, whole.

    A validation by itself writes nothing: its model may be another than the one that was trained in this folder.

    Args:
        folder: Where to, below the trainer's root folder unless it is absolute.
    """

    def __init__(self, folder: str = "sam3") -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put back what a kill in the middle of a replacement has left aside."""
        recover_directory(self._where(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, on the first process."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last steps, too: a run rarely ends with a validation."""
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            cast(Exportable, pl_module).save_pretrained(self._where(trainer))

    def _where(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / self.folder
