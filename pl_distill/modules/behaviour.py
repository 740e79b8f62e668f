"""Train a behaviour head on an embedder's features."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn import functional as F

from datamodules.behaviour import BehaviourDataModule
from datamodules.behaviour_windows import BehaviourBatch, Window
from datamodules.motion import BOX_MOTION, MOTION
from datamodules.splits import Part
from pl_distill.errors import ConfigError
from pl_distill.evaluation.behaviour_scores import (
    BehaviourScores,
    majority_baseline,
    motion_baseline,
    score_behaviours,
)
from pl_distill.models.behaviour_head import (
    HEADS,
    BehaviourModel,
    BranchedHead,
    HeadKind,
    load_behaviour,
    save_behaviour,
)
from pl_distill.models.checkpoints import load_strictly
from pl_distill.modules.all_ranks import fresh_in_batch, from_all_ranks
from pl_distill.modules.exported import ExportedModule

_TRAINED_ON = "behaviour_features"
"""Key of a checkpoint: whose features its head reads, how many a second, in what window, and what its answers mean."""

ADAMW = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.05)


def _said(embedder: str, fps: float, classes: Sequence[str], window: Window) -> dict[str, Any]:
    """Give what a head was trained on as plain values, see `_TRAINED_ON`."""
    return {"embedder": embedder, "fps": fps, "classes": list(classes), "window": asdict(window)}


class BehaviourModule(ExportedModule):
    """Train a head that names what an animal does.

    Logs ``train/loss``, ``val/loss``, and in percent ``val/top1``, ``val/macro_f1`` and for each class
    ``val/recall_<class>`` and ``val/precision_<class>``; with a random division of frames the stage is called
    ``val_random_frames``, and ``test`` where `validate` looks at the test part. Before training it reports the scores
    of three baselines: the most frequent class, a head that sees boxes but no pictures, and one that sees how the axes
    of masks lie, too. The trainer needs `max_steps`.

    Args:
        head: ``temporal`` looks at a window of features and motion, ``frame`` at the features of one frame;
            ``branched`` adds the answers of two temporal ones, of which one sees no features.
        hidden: Width of the head, or of each of its branches.
        dropout: Part of the hidden values that training sets to 0.
        feature_dropout: The same of the features. The looks of a few herds are soon learned by heart, at 0.5 less so;
            with many herds it costs more than it gains.
        balance: How far rare classes weigh more in the loss: a class of n windows weighs n to the power of minus this;
            0 leaves all alike, 1 gives all classes the same say. 0.5 by default: at 1 the rarest, of a few hundred
            windows, would rule.
        smoothing: Part of the target that is spread over all classes: labels change within a frame or two of the truth.
        branch_weight: What the loss of each branch by itself weighs beside that of their sum, in a ``branched`` head.
        weights: A head to begin with, shipped or a folder: of the same kind and size, and for these features. Without
            it training begins from random ones.
        baseline_steps: For which the head without pictures is trained.
        optimizer: Called with two groups of parameters, decayed and not decayed.
        warmup: Steps in which the learning rate rises.
        cooldown: Part of the run in which the learning rate falls to 0, at its end.
    """

    DECISIVE = ("dropout", "feature_dropout", "balance", "smoothing", "branch_weight")

    def __init__(
        self,
        head: HeadKind = "temporal",
        hidden: int = 64,
        dropout: float = 0.3,
        feature_dropout: float = 0.5,
        balance: float = 0.5,
        smoothing: float = 0.05,
        branch_weight: float = 0.5,
        weights: str | None = None,
        baseline_steps: int = 300,
        optimizer: OptimizerCallable = ADAMW,
        warmup: int = 50,
        cooldown: float = 0.4,
    ) -> None:
        super().__init__(optimizer, warmup, cooldown)
        self.kind = head
        self.hidden = hidden
        self.dropout = dropout
        self.feature_dropout = feature_dropout
        self.balance = balance
        self.smoothing = smoothing
        self.branch_weight = branch_weight
        self.weights = weights
        self.baseline_steps = baseline_steps
        self.baselines: dict[str, BehaviourScores] = {}
        self.scores: BehaviourScores | None = None
        self.probabilities, self.targets = torch.zeros(0, 1), torch.zeros(0, dtype=torch.long)
        self._found: list[tuple[Tensor, Tensor]] = []
        self._loaded_step: int | None = None

    @property
    def data(self) -> BehaviourDataModule:
        """The data module, which knows classes, window and embedder.

        Raises:
            ConfigError: The trainer has another one.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, BehaviourDataModule):
            raise ConfigError("data", f"is a {type(data).__name__}", "a BehaviourDataModule", "See behaviour/pen.yaml.")
        return data

    @property
    def stage(self) -> str:
        """What validation is called: scores of random frames never stand under the name of days, nor test under val."""
        return self.part if self.data.division == "days" else f"{self.part}_{self.data.division}"

    @property
    def part(self) -> Part:
        """Which part validation looks at."""
        return "val" if self.trainer.state.fn == TrainerFn.FITTING else self.data.part

    @property
    def step(self) -> int | None:
        """After how many steps the head is judged: `validate` knows it from the checkpoint, None without one."""
        if self.trainer.state.fn == TrainerFn.FITTING or self.trainer.global_step > 0:
            return int(self.trainer.global_step)
        return self._loaded_step

    def configure_model(self) -> None:
        """Build the head for the data's features and classes, once.

        Raises:
            CheckpointError: The head to begin with is absent, damaged, or of another kind or size.
            ConfigError: It was trained on other features, or names other classes.
        """
        if hasattr(self, "net"):
            return
        self.arguments = {
            "features": self.data.feature_size,
            "classes": len(self.data.class_names),
            "hidden": self.hidden,
            "dropout": self.dropout,
            "feature_dropout": self.feature_dropout,
        }
        self.net = HEADS[self.kind](window=self.data.window, **self.arguments)  # type: ignore[arg-type]
        if self.weights is not None:
            begun = load_behaviour(self.weights)
            self._require_alike(_said(begun.embedder, begun.fps, begun.classes, begun.window), "model.weights")
            load_strictly(self.net, begun.head.state_dict(), self.weights)

    def class_weights(self) -> Tensor:
        """Return the weight of each class in the loss, (C,), with a mean of 1 over the windows of training."""
        counts = torch.from_numpy(self.data.windows("train").counts).double().clamp(min=1)
        weights = counts**-self.balance
        return (weights * counts.sum() / (weights * counts).sum()).float()

    def on_fit_start(self) -> None:
        """Weigh the classes; report the baselines."""
        self._weights = self.class_weights().to(self.device)
        self._judge_baselines("val")

    def on_validation_start(self) -> None:
        """Report the baselines of what `validate` looks at."""
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._judge_baselines(self.part)

    def _judge_baselines(self, part: Part) -> None:
        train, judged, names = self.data.windows("train"), self.data.windows(part), self.data.class_names
        if not self.trainer.is_global_zero or not len(train):
            return
        shares = ", ".join(f"{name} {count}" for name, count in zip(names, train.counts, strict=True))
        rank_zero_info(
            f"{len(train)} windows to train on ({shares}), {len(judged)} of {part}, divided by {self.data.division}"
        )
        self.baselines = {"majority": majority_baseline(train, judged, names)}
        for name, columns in (("geometry_and_motion", len(BOX_MOTION)), ("with_axes_of_masks", len(MOTION))):
            self.baselines[name] = motion_baseline(
                train, judged, names, self.data.window, self.class_weights(), self.baseline_steps, columns
            )
        stage = "baseline" if part == "val" else f"baseline_{part}"
        drawn = self.trainer.state.fn == TrainerFn.FITTING and self.trainer.ckpt_path is not None  # by the first start
        for name, scores in self.baselines.items():
            rank_zero_info(f"baseline {name:<20} top-1 {scores.top1:5.1f} %  macro-F1 {scores.macro_f1:5.1f} %")
            if self.logger is not None and not drawn:
                tags = {f"{stage}/{name}_top1": scores.top1, f"{stage}/{name}_macro_f1": scores.macro_f1}
                self.logger.log_metrics(tags, 0)

    def forward(self, batch: BehaviourBatch) -> Tensor:
        """Map windows to logits (B, C)."""
        logits: Tensor = self.net(batch.features, batch.motion, batch.present)
        return logits

    def training_step(self, batch: BehaviourBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        if isinstance(self.net, BranchedHead):
            branches = self.net.branches(batch.features, batch.motion, batch.present)
            loss = self._loss(branches[0] + branches[1], batch.classes)
            for logits in branches:
                loss = loss + self.branch_weight * self._loss(logits, batch.classes)
        else:
            loss = self._loss(self(batch), batch.classes)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.classes))
        return loss

    def _loss(self, logits: Tensor, classes: Tensor) -> Tensor:
        # Not by the `weight` of torch, which weighs each class that a target is spread over by that class's own weight:
        # the part spread over all classes would go to the rare ones.
        each = F.cross_entropy(logits.float(), classes, label_smoothing=self.smoothing, reduction="none")
        weights = self._weights[classes]
        return (weights * each).sum() / weights.sum()

    def on_validation_epoch_start(self) -> None:
        """Begin to collect."""
        self._found = []

    def validation_step(self, batch: BehaviourBatch, batch_idx: int) -> None:
        """Collect probabilities."""
        logits = self(batch).float()
        loss = F.cross_entropy(logits, batch.classes)
        self.log(f"{self.stage}/loss", loss, batch_size=len(logits), sync_dist=True)
        fresh = fresh_in_batch(self.trainer, batch_idx, len(logits))
        self._found.append((logits[:fresh].softmax(1).cpu(), batch.classes[:fresh].cpu()))

    def on_validation_epoch_end(self) -> None:
        """Score what was collected; on several processes that of all."""
        found = [one for rank in from_all_ranks(self._found) for one in rank]
        self.probabilities, self.targets = (torch.cat(column) for column in zip(*found, strict=True))
        scores = score_behaviours(self.probabilities, self.targets, self.data.class_names)
        self.scores = scores
        self.log(f"{self.stage}/top1", scores.top1, prog_bar=True)
        self.log(f"{self.stage}/macro_f1", scores.macro_f1, prog_bar=True)
        if self.trainer.state.fn != TrainerFn.FITTING and (step := self.step):
            self.log("step", float(step - 1))  # where Lightning draws; outside of a fit it would be 0
        rows = zip(scores.classes, scores.recall, scores.precision, scores.support, strict=True)
        for name, recall, precision, support in rows:
            if support:
                self.log(f"{self.stage}/recall_{name}", recall)
                self.log(f"{self.stage}/precision_{name}", precision)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember whose features the head reads, how many a second, in what window, and what its answers mean."""
        super().on_save_checkpoint(checkpoint)
        data = self.data
        checkpoint[_TRAINED_ON] = _said(data.embedder["identity"], data.fps, data.class_names, data.window)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare the checkpoint's head and what it was trained on with this run's, and remember its step.

        A checkpoint that does not say what it was trained on is accepted.

        Raises:
            CheckpointError: Its head is of another kind or size.
            ConfigError: Its head was trained on features of another embedder or rate, on other classes or another
                order of them, or on another window.
        """
        super().on_load_checkpoint(checkpoint)
        self._loaded_step = checkpoint.get("global_step")
        trained = checkpoint.get(_TRAINED_ON)
        if trained is not None and self._trainer is not None:
            self._require_alike(trained, "the checkpoint")

    def _require_alike(self, trained: Mapping[str, Any], what: str) -> None:
        """Compare what a head was trained on with the data: `what` names the head."""
        data = self.data
        features = "data.features " + ", ".join(map(str, data.features))
        if trained["embedder"] != data.embedder["identity"]:
            raise ConfigError(
                features, f"are of the embedder {data.embedder['identity'][:12]}",
                f"{trained['embedder'][:12]}, on whose features {what} was trained",
                "Embed with that one, or train anew.",
            )  # fmt: skip
        if not math.isclose(trained["fps"], data.fps, rel_tol=0.01):
            raise ConfigError(
                features, f"have {data.fps:g} observations a second",
                f"{trained['fps']:g}, as {what} was trained on", "Embed clips of that rate, or train anew.",
            )  # fmt: skip
        asked = _said(data.embedder["identity"], data.fps, data.class_names, data.window)
        for name in ("classes", "window"):
            value = asked[name]
            if (learned := trained.get(name, value)) != value:  # checkpoints of before do not say
                raise ConfigError(
                    f"data.{name}", f"is {value}", f"{learned}, as {what} was trained",
                    "Say the same, or train anew.",
                )  # fmt: skip

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the head as `load_behaviour` reads it."""
        data = self.data
        model = BehaviourModel(
            self.net, self.kind, data.class_names, data.window, data.fps, data.embedder["identity"], data.classes,
            self.arguments,
        )  # fmt: skip
        save_behaviour(Path(folder), model)
        return Path(folder)
