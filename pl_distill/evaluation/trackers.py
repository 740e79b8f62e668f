"""The trackers that an evaluation runs on one network: ours, and simpler ones to compare with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from pl_distill.evaluation.models import OpenedModel
from pl_distill.evaluation.replay import Tracker
from pl_distill.models.embedder import Embedder
from pl_distill.models.embedder_load import load_embedder
from pl_distill.streaming import DetectionTracker, PruningPolicy, StockTracker, StreamingTracker

Baseline = Literal["stock", "iou"]


@dataclass(frozen=True)
class BaselineText:
    """What a reader is told about a baseline: its name and one sentence."""

    label: str
    explanation: str


BASELINES: dict[str, BaselineText] = {
    "stock": BaselineText(
        "stock transformers", "The same network in transformers' own session: nothing is forgotten, no track ends."
    ),
    "iou": BaselineText(
        "detector + IoU", "The same detector in every frame, boxes joined by overlap: no memory of how an animal looks."
    ),
}


class ClosingTracker(Tracker, Protocol):
    """A tracker that lets go of its memory when it is asked to."""

    def close(self) -> None:
        """Let go of all memory."""


def load_recogniser(
    policy: PruningPolicy, device: torch.device, loaded: Mapping[str, Embedder] | None = None
) -> Embedder | None:
    """Load the embedder by which a policy recognises animals; None if it recognises none.

    Args:
        policy: Names it.
        device: Where it shall run.
        loaded: Embedders by name that are there already, for what follows the tracker.

    Raises:
        CheckpointError: There is no such embedder, or it is damaged.
    """
    if policy.appearance is None:
        return None
    name = policy.appearance.embedder
    return (loaded or {}).get(name) or load_embedder(name, device)


def make_tracker(
    opened: OpenedModel, policy: PruningPolicy, recogniser: Embedder | None, baseline: str | None
) -> ClosingTracker:
    """Return our tracker on a network, or the baseline of that name; policy and recogniser are ours alone."""
    if baseline == "stock":
        return StockTracker(opened.sam3, opened.prompt, opened.preprocessing)
    if baseline == "iou":
        return DetectionTracker(opened.sam3, opened.prompt, opened.preprocessing)
    return StreamingTracker(opened.sam3, opened.prompt, opened.preprocessing, policy, recogniser)
