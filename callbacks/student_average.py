"""Keep a running average of the student's weights: validation, checkpoints and the exported student are of it."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor

from pl_distill.errors import ConfigError


class StudentAverage(WeightAveraging):
    """Average the weights over steps, ``average += (1 - d) * (weights - average)``, Lightning's callback with a start.

    ``d = min(decay, (1 + n) / (10 + n))`` after n steps (as in TensorFlow's moving averages), so that a short run does
    not keep its random beginning. `val/` and checkpoints are of the average; a checkpoint also holds the weights in
    training, and a resumed run goes on exactly.

    Args:
        decay: How much of the average stays at each step, 0 to 1: 0.999 looks back about a thousand steps.

    Raises:
        ConfigError: `decay` is out of range, or DeepSpeed divides the weights.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ConfigError("StudentAverage.decay", f"is {decay}", "0 to 1, without 1", "Use 0.999.")
        self.decay = decay
        super().__init__(avg_fn=self._average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Build the student, and copy it.

        Raises:
            ConfigError: DeepSpeed divides the weights.
        """
        if isinstance(trainer.strategy, DeepSpeedStrategy):
            fix = "Use trainer/ddp.yaml, or take the callback out."
            raise ConfigError("StudentAverage", "is used with DeepSpeed", "one device, or DDP", fix)
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the average to the student: when Lightning copied it, both were on the CPU still."""
        if self._average_model is not None:
            self._average_model.to(pl_module.device)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait: callbacks that save the end of a training are yet to come, and need the weights in training, too."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in the place of the last weights, also where a finished training was only opened again."""
        super().on_train_end(trainer, pl_module)

    def _average(self, average: Tensor, weights: Tensor, steps: Tensor | int) -> Tensor:
        # the first of all is a copy, which torch makes by itself
        decay = min(self.decay, (1 + float(steps)) / (10 + float(steps)))
        mean: Any = average + (1 - decay) * (weights - average)
        return mean if average.is_floating_point() else weights.clone()  # BatchNorm counts batches
