"""What this run is, in TensorBoard: its configuration as text, and its settings beside its final scores."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.tensorboard.summary import hparams

METRICS = ("val/cosine", "val/relative_error", "val/centred_relative_error", "val/loss")


class RunCard(Callback):
    """Write the tag `config` (the recipe, as `pl-distill fit --config` takes it) and a line in the tab of hparams.

    The line also has, and the log says, how many samples a step sees on all processes together and how many epochs
    `max_steps` are: a recipe for one GPU that is given eight would train eight times as long.

    The columns of scores in that tab are curves of the run: they show its last values, also after a kill. Lightning's
    own entry would have no scores.

    Args:
        metrics: Tags of the scores.
    """

    def __init__(self, metrics: Sequence[str] = METRICS) -> None:
        self.metrics = tuple(metrics)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write both, on the first process, when config.yaml is saved."""
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not trainer.is_global_zero or not boards:
            return
        extent = extent_of(trainer)
        if "epochs" in extent:
            said = f"{extent['samples_per_step']} samples a step, {extent['epochs']:g} epochs"
            rank_zero_info(f"{trainer.max_steps} steps on {trainer.world_size} processes: {said}")
        config = Path(trainer.default_root_dir) / "config.yaml"
        settings = flatten(dict(pl_module.hparams)) | {
            "max_steps": trainer.max_steps,
            "precision": str(trainer.precision),
            "processes": trainer.world_size,
            **extent,
            "seed": os.environ.get("PL_GLOBAL_SEED", ""),  # where Lightning keeps it
        }
        for board in boards:
            if config.is_file():
                text = "\n".join(f"    {line}" for line in config.read_text(encoding="utf-8").splitlines())
                board.experiment.add_text("config", text)
            experiment, start, _ = hparams(settings, dict.fromkeys(self.metrics, 0.0))  # type: ignore[no-untyped-call]
            for summary in (experiment, start):  # the third says that the run has ended
                board.experiment.file_writer.add_summary(summary)


def extent_of(trainer: Trainer) -> dict[str, int | float]:
    """Return `samples_per_step`, of all processes together, and `epochs`, how often the run sees each sample.

    Empty where the data module has no batch size, or the run no number of steps or batches.
    """
    batch, batches = getattr(getattr(trainer, "datamodule", None), "batch_size", None), trainer.num_training_batches
    if not isinstance(batch, int) or trainer.max_steps < 1 or not 0 < batches < math.inf:
        return {}
    accumulated = trainer.accumulate_grad_batches
    steps = math.ceil(batches / accumulated)  # of an epoch, whose last one takes what is left
    return {
        "samples_per_step": batch * trainer.world_size * accumulated,
        "epochs": round(trainer.max_steps / steps, 2),
    }


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Return nested settings under joined names, as short as a column's head must be.

    A class is named where its arguments hang, without its module: ``{"loss": {"class_path": "a.b.Huber", "init_args":
    {"delta": 1}}}`` becomes ``{"loss": "Huber", "loss.delta": 1}``. What is None is left out.
    """
    flat: dict[str, str | int | float | bool] = {}
    for name, value in settings.items():
        if name == "class_path":
            flat[prefix.removesuffix(".")] = str(value).rpartition(".")[2]
        elif isinstance(value, Mapping):
            flat |= flatten(value, prefix if name == "init_args" else f"{prefix}{name}.")
        elif value is not None and not name.startswith("_"):
            flat[prefix + name] = value if isinstance(value, str | int | float | bool) else str(value)
    return flat
