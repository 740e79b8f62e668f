"""One progress bar over a whole training, with the time that is left.

Lightning's own bar starts again with every epoch, and has no end in an epoch that is resumed: nobody could tell from it
when a run of many short epochs ends.
"""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class StepProgress(TQDMProgressBar):
    """Count optimiser steps up to the trainer's `max_steps`; a resumed run starts at the step that it has reached.

    Args:
        refresh_rate: Steps between two looks at the bar.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar where the run stands."""
        bar: Tqdm = self.init_train_tqdm()
        bar.total = trainer.max_steps if trainer.max_steps > 0 else None
        bar.initial = bar.n = bar.last_print_n = trainer.global_step
        bar.unit = "step"
        bar.set_description("fit", refresh=False)
        self.train_progress_bar = bar

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Let the bar go on."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on to the step that is done, which with gradient accumulation is not every batch."""
        step = trainer.global_step
        if step > self.train_progress_bar.n and (step % self.refresh_rate == 0 or step == trainer.max_steps):
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, pl_module), refresh=False)
            self.train_progress_bar.update(step - self.train_progress_bar.n)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what the epoch's validation found; Lightning would close the bar here."""
        if not self.train_progress_bar.disable:
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, pl_module))

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what is shown behind the bar: the losses."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the version of a folder that has none
        return metrics
