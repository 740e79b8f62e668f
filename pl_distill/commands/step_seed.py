"""A resumed run draws what an uninterrupted one would have drawn: dropout, stochastic depth, and what networks vary."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class StepSeed(Callback):
    """Seed torch's generators before each batch, from the run's seed, the batch and the rank.

    Checkpoints hold no state of generators: after a resume a plain run would draw other masks than without the stop,
    and end with other weights.
    """

    def __init__(self) -> None:
        self._seed = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the run's seed, which `seed_everything` has set."""
        self._seed = torch.initial_seed()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed CPU and GPUs."""
        parts = (self._seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint32)[0]))
