"""Base of the trainings whose model is written into a folder by a callback.

No command opens their checkpoints as a model: without the callback, the model would be lost.
"""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable

from pl_distill.errors import ConfigError
from pl_distill.models.checkpoints import check_fit
from pl_distill.modules.parameter_groups import parameter_groups
from pl_distill.modules.schedules import check_part, check_steps, trapezoid_schedule

EXPORT = "callbacks.sam3_export.Sam3Export"  # by its name: callbacks are a floor above


class ExportedModule(LightningModule):
    """A module whose model is lost where `EXPORT` is not among the trainer's callbacks.

    Args:
        optimizer: Called with two groups of parameters, decayed and not decayed.
        warmup: Steps in which the learning rate rises.
        cooldown: Part of the run in which the learning rate falls to 0, at its end.

    Raises:
        ConfigError: `warmup` or `cooldown` is out of its range.
    """

    def __init__(self, optimizer: OptimizerCallable, warmup: int, cooldown: float) -> None:
        super().__init__()
        check_steps("model.warmup", warmup)
        check_part("model.cooldown", cooldown, whole="all steps")
        self.build_optimizer = optimizer
        self.warmup = warmup
        self.cooldown = cooldown

    def configure_optimizers(self) -> Any:
        """Decay only what multiplies; the learning rate is a trapezoid."""
        optimizer = self.build_optimizer(parameter_groups(self))
        return trapezoid_schedule(self.trainer, optimizer, warmup=self.warmup, cooldown=self.cooldown)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare names and shapes of a checkpoint's tensors; DeepSpeed compares them itself.

        Raises:
            CheckpointError: It is of another architecture.
        """
        if "state_dict" in checkpoint and self._trainer is not None:
            check_fit(self, checkpoint["state_dict"], str(self._trainer.ckpt_path))


def check_export(module: LightningModule, trainer: Trainer) -> None:
    """Refuse to train what nobody would write; a second trainer file replaces the callbacks of the recipe.

    Raises:
        ConfigError: `module` is an `ExportedModule` and no callback writes it.
    """
    kinds = [kind for callback in trainer.callbacks for kind in type(callback).__mro__]  # type: ignore[attr-defined]
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds]
    if isinstance(module, ExportedModule) and EXPORT not in names:
        raise ConfigError(
            "trainer.callbacks",
            f"have no {EXPORT}, and the model would not be written",
            "that of the recipe, which has a trainer of its own",
            f"Leave other trainer files out, or give --trainer.callbacks+ {EXPORT}.",
        )
