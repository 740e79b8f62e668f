"""Pictures of a behaviour head in TensorBoard: confusion matrices and curves of precision over recall, and a file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from datamodules.files import write_json
from pl_distill.evaluation.behaviour_plots import draw_confusion, draw_precision_recall
from pl_distill.modules.behaviour import BehaviourModule

RESULTS = "behaviour.json"
RESULTS_SCHEMA = 1


class BehaviourPictures(Callback):
    """After each validation draws ``<stage>/confusion_counts``, ``_normalised`` and ``precision_recall``.

    It also writes ``behaviour.json`` into the trainer's root folder: ``{"schema": 1, "stage", "part", "division",
    "embedder", "head", "step", "scores", "baselines"}``, of the last validation. ``step`` counts those that were made;
    of `validate` it is the checkpoint's, null without one.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and write, on the first process."""
        if not trainer.is_global_zero or trainer.sanity_checking or not isinstance(pl_module, BehaviourModule):
            return
        scores = pl_module.scores
        if scores is None:
            return
        stage, step = pl_module.stage, pl_module.step
        if isinstance(trainer.logger, TensorBoardLogger):
            board: Any = trainer.logger.experiment
            counts = np.array(scores.confusion)
            pictures = {
                "confusion_counts": draw_confusion(counts, scores.classes, normalised=False),
                "confusion_normalised": draw_confusion(counts, scores.classes, normalised=True),
                "precision_recall": draw_precision_recall(
                    pl_module.probabilities, pl_module.targets, scores.classes, scores.average_precision
                ),
            }
            for name, picture in pictures.items():
                board.add_image(f"{stage}/{name}", picture, max(0, (step or 0) - 1), dataformats="HWC")
        content = {
            "schema": RESULTS_SCHEMA,
            "stage": stage,
            "part": pl_module.part,
            "division": pl_module.data.division,
            "embedder": pl_module.data.embedder,
            "head": pl_module.kind,
            "step": step,
            "scores": asdict(scores),
            "baselines": {name: asdict(one) for name, one in pl_module.baselines.items()},
        }
        write_json(Path(trainer.default_root_dir) / RESULTS, content)
        if trainer.state.fn != TrainerFn.FITTING:
            rank_zero_info(scores.table())
