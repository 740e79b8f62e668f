"""How well behaviours are recognised, and what the least is that a model has to beat."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_average_precision,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from datamodules.behaviour import BehaviourWindows
from datamodules.behaviour_windows import BehaviourBatch, Window
from pl_distill.models.behaviour_head import TemporalHead

_BATCH, _LEARNING_RATE = 256, 2e-3


@dataclass(frozen=True)
class BehaviourScores:
    """Scores over some windows; percentages are 0-100.

    Args:
        classes: Names.
        windows: How many were judged.
        top1: Part whose most probable class is right.
        macro_f1: Mean of the classes' F1, over those that occur.
        precision: Of each class; 0 where it was never said.
        recall: Of each class; 0 where it never occurs.
        f1: Of each class.
        average_precision: Area under each class's curve of precision over recall.
        support: Windows of each class.
        confusion: Counts, true class by said class.
    """

    classes: tuple[str, ...]
    windows: int
    top1: float
    macro_f1: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    average_precision: tuple[float, ...]
    support: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]

    def table(self) -> str:
        """Return the scores of every class as text."""
        width = max(map(len, self.classes))
        lines = [f"{'class':<{width}}  windows  precision  recall     F1"]
        rows = zip(self.classes, self.support, self.precision, self.recall, self.f1, strict=True)
        lines += [f"{name:<{width}}  {n:>7}  {p:>9.1f}  {r:>6.1f}  {f:>5.1f}" for name, n, p, r, f in rows]
        return "\n".join(lines)


def score_behaviours(probabilities: Tensor, targets: Tensor, classes: Sequence[str]) -> BehaviourScores:
    """Score predictions.

    Args:
        probabilities: Shape (N, C), 0-1.
        targets: Shape (N,), indices of classes.
        classes: Names, C of them.
    """
    count = len(classes)
    confusion = multiclass_confusion_matrix(probabilities, targets, count)
    support = confusion.sum(1)
    f1 = multiclass_f1_score(probabilities, targets, count, average="none")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No positive samples")  # a class that never occurs counts 0 below
        areas = multiclass_average_precision(probabilities, targets, count, average="none").nan_to_num()
    return BehaviourScores(
        tuple(classes),
        len(targets),
        100 * float(multiclass_accuracy(probabilities, targets, count, average="micro")),
        100 * float(f1[support > 0].mean()),
        _percent(multiclass_precision(probabilities, targets, count, average="none")),
        _percent(multiclass_recall(probabilities, targets, count, average="none")),
        _percent(f1),
        _percent(areas),
        tuple(support.tolist()),
        tuple(tuple(row) for row in confusion.tolist()),
    )


def majority_baseline(train: BehaviourWindows, judged: BehaviourWindows, classes: Sequence[str]) -> BehaviourScores:
    """Score the answer that is always the most frequent class of training."""
    answer = torch.full((len(judged),), int(train.counts.argmax()))
    return score_behaviours(F.one_hot(answer, len(classes)).float(), torch.from_numpy(judged.labels), classes)


def motion_baseline(
    train: BehaviourWindows,
    judged: BehaviourWindows,
    classes: Sequence[str],
    window: Window,
    weights: Tensor,
    steps: int,
    columns: int,
) -> BehaviourScores:
    """Score a temporal head that sees no picture, only where animals are and how they move.

    Args:
        train: To learn from.
        judged: To be scored on.
        classes: Names.
        window: What the head looks at.
        weights: Of the classes in the loss, (C,): the same as the model's.
        steps: Of its training.
        columns: How many of `MOTION` it sees, from the first on: ``len(BOX_MOTION)`` are those of boxes alone.
    """
    # `validate` asks inside of inference mode, where nothing could be learned.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(0)
        weights = weights.clone()
        head = TemporalHead(1, len(classes), window, hidden=64, dropout=0.1, pictures=False)
        optimizer = torch.optim.AdamW(head.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
        schedule: Any = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
        for _ in range(steps):
            rows = torch.randint(len(train), (_BATCH,)).tolist()
            batch = train.collate(rows)
            loss = F.cross_entropy(_blind(head, batch, columns), batch.classes, weights)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    head.eval()
    with torch.inference_mode():
        found = [_blind(head, batch, columns).softmax(1) for batch in judged.batches(2048)]
    return score_behaviours(torch.cat(found), torch.from_numpy(judged.labels), classes)


def _blind(head: TemporalHead, batch: BehaviourBatch, columns: int) -> Tensor:
    motion = batch.motion.clone()
    motion[..., columns:] = 0
    logits: Tensor = head(batch.features, motion, batch.present)
    return logits


def _percent(values: Tensor) -> tuple[float, ...]:
    return tuple((100 * values).tolist())
