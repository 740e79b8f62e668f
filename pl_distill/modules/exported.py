"""Trainings whose result is a folder that a callback writes; from their checkpoints alone no model is opened."""

from lightning.pytorch import LightningModule, Trainer

from pl_distill.errors import ConfigError

EXPORT = "callbacks.sam3_export.Sam3Export"  # by its name: callbacks are a floor above


class Exported:
    """A module whose model is lost where `EXPORT` is not among the trainer's callbacks."""


def check_export(module: LightningModule, trainer: Trainer) -> None:
    """Refuse to train what nobody would write; a second trainer file replaces the callbacks of the recipe.

    Raises:
        ConfigError: `module` is `Exported` and no callback writes it.
    """
    kinds = [kind for callback in trainer.callbacks for kind in type(callback).__mro__]  # type: ignore[attr-defined]
    if isinstance(module, Exported) and EXPORT not in [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds]:
        raise ConfigError(
            "trainer.callbacks",
            f"have no {EXPORT}, and the model would not be written",
            "that of the recipe, which has a trainer of its own",
            f"Leave other trainer files out, or give --trainer.callbacks+ {EXPORT}.",
        )
