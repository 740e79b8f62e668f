"""A training that has diverged ends with an error, and leaves the last checkpoint that can be used."""

from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from datamodules.errors import UserError


class FiniteWeights(Callback):
    """Refuse to save weights that are infinite or not a number: checkpoints, and what other callbacks export.

    All ranks agree, so that none waits for one that has left. Nothing is done at steps that save nothing.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look before callbacks export what was validated."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._check(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look before callbacks export the end."""
        self._check(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look before a checkpoint replaces an older one."""
        self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.strategy.reduce_boolean_decision(are_finite(pl_module, trainer.global_rank), all=True):
            step = trainer.global_step
            raise UserError(
                trainer.default_root_dir,
                f"has weights that are infinite or not a number at step {step}: the training has diverged",
                "numbers",
                "Nothing of this step is saved. Train anew with a lower learning rate or, where it was on the way for "
                "long, go on from the last checkpoint and look at the data of the steps behind it.",
            )


def are_finite(module: LightningModule, rank: int = 0) -> bool:
    """Return whether all weights and statistics that this rank holds are finite; of ZeRO-3 it has a part."""
    values = (_held(value, rank) for value in module.state_dict(keep_vars=True).values())
    return all(bool(torch.isfinite(value).all()) for value in values)


def _held(value: Any, rank: int) -> Tensor:
    if not hasattr(value, "ds_tensor"):
        return cast(Tensor, value)
    part: Tensor = value.ds_tensor  # all ranks' are as long: the last one's has an end that DeepSpeed leaves as it was
    return part.flatten()[: max(0, value.ds_numel - rank * part.numel())]
