"""The last steps of a training are kept, too: they rarely end with a validation, when `ModelCheckpoint` writes."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class FinalCheckpoint(Callback):
    """Bring ``last.ckpt`` of every `ModelCheckpoint` with `save_last` up to the step at which the training ended."""

    def __init__(self) -> None:
        self._saved_step = -1

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note what is written already."""
        self._saved_step = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it anew where it is older; where none was written yet, `ModelCheckpoint` does so itself."""
        if self._saved_step == trainer.global_step:
            return
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.save_last and callback.last_model_path:
                trainer.save_checkpoint(callback.last_model_path, callback.save_weights_only)
