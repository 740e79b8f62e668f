"""Training curves out of TensorBoard's event files, across the pieces that a resumed run leaves behind."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # no annotations
    SCALARS,
    EventAccumulator,
)

from pl_distill.evaluation.board import is_board

STAGES = ("train", "val")
_EVENTS = "events.out.tfevents.*"


@dataclass(frozen=True)
class Curve:
    """One quantity over a training: steps rise, one value each."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


Curves = Mapping[str, Mapping[str, Curve]]
"""Quantity -> stage (``train``, ``val``) -> curve; the loss first, what both stages have (its terms), the others."""


def read_curves(folder: Path) -> Curves:
    """Read all ``train/...`` and ``val/...`` scalars below a folder, those of evaluations left out.

    A run that was resumed has several event files, and a killed run repeats the steps since its last checkpoint: a file
    of a training takes the place of all that older ones tell from its first step on. Of another training in the same
    place nothing is left where it began again.
    """
    points: dict[tuple[str, str], dict[int, float]] = {}
    for _, events in sorted(_read_files(folder), key=lambda one: one[0]):
        found = {
            (quantity, stage): events.Scalars(tag)
            for tag in events.Tags()[SCALARS]
            for stage, _, quantity in [tag.partition("/")]
            if stage in STAGES and quantity
        }
        if any(stage == "train" for _, stage in found):
            begin = min(event.step for series in found.values() for event in series)
            for series in points.values():
                for step in [step for step in series if step >= begin]:
                    del series[step]
        for key, told in found.items():
            points.setdefault(key, {}).update({event.step: event.value for event in told})
    points = {key: series for key, series in points.items() if series}
    curves: dict[str, dict[str, Curve]] = {}
    stages_of = Counter(quantity for quantity, _ in points)
    for quantity, stage in sorted(points, key=lambda key: (key[0] != "loss", -stages_of[key[0]], key)):
        series = points[quantity, stage]
        steps = tuple(sorted(series))
        curves.setdefault(quantity, {})[stage] = Curve(steps, tuple(series[step] for step in steps))
    return curves


def _read_files(folder: Path) -> Iterator[tuple[float, Any]]:
    """Give the event files of trainings below a folder, each with the time of its first event."""
    for path in folder.rglob(_EVENTS):
        if is_board(path):  # of the parts `train` and `val` it holds scores under the tags of a training
            continue
        events = EventAccumulator(str(path), size_guidance={SCALARS: 0}).Reload()
        times = [event.wall_time for tag in events.Tags()[SCALARS] for event in events.Scalars(tag)]
        if times:
            yield min(times), events
