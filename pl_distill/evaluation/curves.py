"""Training curves out of TensorBoard's event files, across the pieces that a resumed run leaves behind."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # no annotations
    SCALARS,
    EventAccumulator,
)

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
    """Read all ``train/...`` and ``val/...`` scalars below a folder.

    A run that was resumed has several event files. Where two tell the same step, the later one is believed: a killed
    run repeats the steps since its last checkpoint.
    """
    points: dict[tuple[str, str], dict[int, tuple[float, float]]] = {}
    for run in sorted({path.parent for path in folder.rglob(_EVENTS)}):
        events = EventAccumulator(str(run), size_guidance={SCALARS: 0}).Reload()
        for tag in events.Tags()[SCALARS]:
            stage, _, quantity = tag.partition("/")
            if stage not in STAGES or not quantity:
                continue
            series = points.setdefault((quantity, stage), {})
            for event in events.Scalars(tag):
                if event.step not in series or series[event.step][0] <= event.wall_time:
                    series[event.step] = (event.wall_time, event.value)
    curves: dict[str, dict[str, Curve]] = {}
    stages_of = Counter(quantity for quantity, _ in points)
    for quantity, stage in sorted(points, key=lambda key: (key[0] != "loss", -stages_of[key[0]], key)):
        series = points[quantity, stage]
        steps = tuple(sorted(series))
        curves.setdefault(quantity, {})[stage] = Curve(steps, tuple(series[step][1] for step in steps))
    return curves
