"""What this run is, in TensorBoard: its configuration as text, and its settings beside its final scores."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

METRICS = ("val/cosine", "val/relative_error", "val/centred_relative_error", "val/loss")


class RunCard(Callback):
    """Write the tag `config` (the recipe, as `pl-distill fit --config` takes it) and a line in the tab of hparams.

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
        config = Path(trainer.default_root_dir) / "config.yaml"
        settings = flatten(dict(pl_module.hparams)) | {
            "max_steps": trainer.max_steps,
            "precision": str(trainer.precision),
            "processes": trainer.world_size,
            "seed": os.environ.get("PL_GLOBAL_SEED", ""),  # where Lightning keeps it
        }
        for board in boards:
            if config.is_file():
                text = "\n".join(f"    {line}" for line in config.read_text(encoding="utf-8").splitlines())
                board.experiment.add_text("config", text)
            experiment, start, _ = hparams(settings, dict.fromkeys(self.metrics, 0.0))  # type: ignore[no-untyped-call]
            for summary in (experiment, start):  # the third says that the run has ended
                board.experiment.file_writer.add_summary(summary)


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
