"""Base of the trainings whose model is written into a folder by a callback.

No command opens their checkpoints as a model: without the callback, the model would be lost.
"""

from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.strategies import DeepSpeedStrategy

from pl_distill.errors import ConfigError
from pl_distill.modules.parameter_groups import parameter_groups
from pl_distill.modules.resumed import ResumedModule
from pl_distill.modules.schedules import check_part, check_steps, trapezoid_schedule
from pl_distill.modules.training_identity import (
    Identity,
    data_settings,
    module_settings,
    optimizer_settings,
    trainer_settings,
)

EXPORT = "callbacks.sam3_export.Sam3Export"  # by its name: callbacks are a floor above


class ExportedModule(ResumedModule):
    """A module whose model is lost where `EXPORT` is not among the trainer's callbacks.

    Args:
        optimizer: Called with two groups of parameters, decayed and not decayed.
        warmup: Steps in which the learning rate rises.
        cooldown: Part of the run in which the learning rate falls to 0, at its end.

    Raises:
        ConfigError: `warmup` or `cooldown` is out of its range.
    """

    DECISIVE: ClassVar[tuple[str, ...]] = ()
    """Names of the module's own settings that decide what is learned, and that no tensor's shape tells."""

    def __init__(self, optimizer: OptimizerCallable, warmup: int, cooldown: float) -> None:
        super().__init__()
        check_steps("model.warmup", warmup)
        check_part("model.cooldown", cooldown, whole="all steps")
        self.build_optimizer = optimizer
        self.warmup = warmup
        self.cooldown = cooldown
        self._optimizer_settings: dict[str, Any] = {}  # once it is built

    @property
    def training_identity(self) -> Identity:
        """What decides what is learned, apart from shapes: data, clipping, own settings and optimiser."""
        return {
            "data": data_settings(getattr(self._trainer, "datamodule", None)),
            "trainer": trainer_settings(self._trainer),
            **module_settings(self, self.DECISIVE),
            "model.optimizer": self._optimizer_settings,
        }

    def configure_optimizers(self) -> Any:
        """Decay only what multiplies; the learning rate is a trapezoid.

        Raises:
            ConfigError: The fit goes on from one with another optimiser.
        """
        optimizer = self.build_optimizer(parameter_groups(self))
        self._optimizer_settings = optimizer_settings(optimizer)
        self.require_same_training()
        return trapezoid_schedule(self.trainer, optimizer, warmup=self.warmup, cooldown=self.cooldown)


def check_export(module: LightningModule, trainer: Trainer) -> None:
    """Refuse to train what nobody would write whole; a second trainer file replaces the callbacks of the recipe.

    Raises:
        ConfigError: `module` is an `ExportedModule`, and no callback writes it, or each process has a part of it.
    """
    strategy = trainer.strategy
    if isinstance(module, ExportedModule) and isinstance(strategy, DeepSpeedStrategy) and strategy.zero_stage_3:
        raise ConfigError(
            "trainer.strategy",
            "is ZeRO-3, which divides the weights among the processes: the model would be written empty",
            "a strategy that leaves weights whole",
            "Give --trainer.strategy ddp, or ZeRO-2 as in trainer/deepspeed_stage2.yaml.",
        )
    kinds = [kind for callback in trainer.callbacks for kind in type(callback).__mro__]  # type: ignore[attr-defined]
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds]
    if isinstance(module, ExportedModule) and EXPORT not in names:
        raise ConfigError(
            "trainer.callbacks",
            f"have no {EXPORT}, and the model would not be written",
            "that of the recipe, which has a trainer of its own",
            f"Leave other trainer files out, or give --trainer.callbacks+ {EXPORT}.",
        )
