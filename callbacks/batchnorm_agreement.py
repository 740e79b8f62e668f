"""Every process has the same BatchNorm statistics after each step, so that a checkpoint of one holds those of all.

TinyViT's convolutions carry BatchNorm. DDP overwrites the running statistics of all ranks with rank 0's, but only at
the next forward pass in training: a validation before it differs from rank to rank. DeepSpeed never does, and ZeRO-1
and ZeRO-2 save rank 0's alone: after a resume the others go on with statistics that were not theirs.
"""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNormAgreement(Callback):
    """Average running means and variances over all processes after each batch, in one message.

    A running mean is linear in what it has seen: averaged at every step or at the end it is the same, so when a run
    saves, validates or is started again does not matter. `SyncBatchNorm` has equal statistics already and is left
    alone; weights are not touched.
    """

    def __init__(self) -> None:
        self._statistics: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the statistics."""
        self._statistics = statistics(pl_module) if trainer.world_size > 1 else []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Average them."""
        if self._statistics:
            flat = torch.cat([one.flatten() for one in self._statistics])
            mean = trainer.strategy.reduce(flat, reduce_op="mean")
            assert isinstance(mean, Tensor)
            parts = torch.split(mean, [one.numel() for one in self._statistics])
            for one, part in zip(self._statistics, parts, strict=True):
                one.copy_(part.view_as(one))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let them go."""
        self._statistics = []


def statistics(module: nn.Module) -> list[Tensor]:
    """Return running means and variances of all BatchNorm layers, without those that are synchronised anyway."""
    layers = [one for one in module.modules() if isinstance(one, _BatchNorm) and not isinstance(one, nn.SyncBatchNorm)]
    return [one for layer in layers for one in (layer.running_mean, layer.running_var) if isinstance(one, Tensor)]
