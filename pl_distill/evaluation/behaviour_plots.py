"""Draw what a behaviour head mistakes for what."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import multiclass_precision_recall_curve

from datamodules.clip import Image


def draw_confusion(counts: NDArray[np.int64], classes: Sequence[str], *, normalised: bool) -> Image:
    """Draw a confusion matrix, (H, W, 3).

    Args:
        counts: Windows, true class by said class.
        classes: Names.
        normalised: Whether each row is shown in percent of its sum; otherwise counts are.
    """
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown = shares if normalised else counts
    figure = Figure(figsize=(7.2, 6.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for row in range(len(classes)):
        for column in range(len(classes)):
            if counts[row, column]:
                text = f"{shown[row, column]:.1f}" if normalised else f"{shown[row, column]:d}"
                colour = "white" if shares[row, column] > 55 else "black"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(classes)), classes, rotation=40, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("said")
    axes.set_ylabel("true")
    axes.set_title("percent of each true class" if normalised else "windows")
    return _pixels(figure)


def draw_precision_recall(
    probabilities: Tensor, targets: Tensor, classes: Sequence[str], average_precision: Sequence[float]
) -> Image:
    """Draw precision over recall for every class that occurs, (H, W, 3).

    Args:
        probabilities: Shape (N, C), 0-1.
        targets: Shape (N,).
        classes: Names.
        average_precision: Of each class, percent.
    """
    precision, recall, _ = multiclass_precision_recall_curve(probabilities, targets, len(classes))
    figure = Figure(figsize=(7.2, 5.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for number, name in enumerate(classes):
        if (targets == number).any():
            label = f"{name} {average_precision[number]:.1f}"
            axes.step(100 * recall[number], 100 * precision[number], where="post", label=label, linewidth=1.4)
    axes.set(xlim=(0, 101), ylim=(0, 101), xlabel="recall, %", ylabel="precision, %")
    axes.legend(title="average precision, %", fontsize=8, loc="lower left")
    axes.grid(alpha=0.3)
    return _pixels(figure)


def _pixels(figure: Figure) -> Image:
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
