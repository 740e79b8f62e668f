"""Run embedder and behaviour head (`Monitor`, as `track` does) on the tracks of each model and on annotated boxes.

What it says of every animal is written as lines (`AnimalLines`); scores are computed from these files.
"""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.clip import Clip, Frame
from datamodules.files import atomic_path, sha256_of, write_json
from pl_distill.code_state import code_sha256
from pl_distill.evaluation.clip_files import ClipFiles
from pl_distill.evaluation.embedding import animals_of_truth
from pl_distill.models.behaviour_head import BehaviourModel, load_behaviour
from pl_distill.models.embedder import Embedder
from pl_distill.models.embedder_load import load_embedder
from pl_distill.monitor import Monitor
from pl_distill.monitor_sinks import AnimalLines

TRUTH = "truth"
"""Role of the annotations, where they stand in the place of a tracker."""

_DECIDING = (
    "pl_distill/monitor.py",
    "pl_distill/monitor_sinks.py",
    "pl_distill/evaluation/chain.py",
    "pl_distill/evaluation/embedding.py",
)
"""Where a change of the code may change what is said of animals; data, models and trackers count in every replay."""


@dataclass(frozen=True)
class Chain:
    """What follows the tracker.

    Args:
        embedder: Describes animals.
        behaviour: Names what they do.
    """

    embedder: Embedder
    behaviour: BehaviourModel

    @property
    def identity(self) -> dict[str, str]:
        """Everything that its answers depend on, beside pictures and tracks."""
        return {
            "embedder": self.embedder.identity,
            "behaviour": self.behaviour.identity,
            "code_sha256": code_sha256(_DECIDING),
        }

    def monitor(self, lines: Path) -> Monitor:
        """Begin a clip; what is said of it goes into a file."""
        return Monitor(self.embedder, self.behaviour, [AnimalLines(lines)])


def open_chain(embedder: str, behaviour: str, device: torch.device) -> Chain:
    """Load embedder and head.

    Raises:
        CheckpointError: One of them is absent or damaged.
        ConfigError: The head was trained on another embedder.
    """
    chain = Chain(load_embedder(embedder, device), load_behaviour(behaviour))
    Monitor(chain.embedder, chain.behaviour)  # refuses what does not belong together, before hours of tracking
    return chain


class Progress(Protocol):
    """Is told of every frame; tqdm is one."""

    def update(self) -> object:
        """One more frame is done."""


@dataclass(frozen=True, eq=False)
class _TrueAnimals:
    """The visible animals of a frame, as a tracker without a fault would give them."""

    ids: tuple[int, ...]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    masks: NDArray[np.bool_] | None
    renamed: frozenset[int] = frozenset()


def numbers_of(clip: Clip) -> dict[str, int]:
    """Number the annotated animals of a clip: what stands for a tracker's numbers in the lines of the truth."""
    names = {name for annotation in clip.annotations.values() for name in annotation.identities}
    return {name: number for number, name in enumerate(sorted(names))}


def describe_truth(
    clip: Clip,
    chain: Chain,
    files: ClipFiles,
    identity: Mapping[str, Any],
    *,
    max_frames: int | None,
    progress: Progress,
) -> None:
    """Give a clip's annotations to the chain as if a tracker had found them, and write what it says.

    The chain gets every frame, an unlabelled one without animals: its moments are then those of the models' chains.

    Args:
        clip: With its annotations.
        chain: Describes the animals.
        files: Where to write; older files are replaced.
        identity: Everything that the answers depend on, as plain values.
        max_frames: Only the first so many frames.
        progress: Is told of every frame.
    """
    files.record.unlink(missing_ok=True)  # from now on this clip is not finished
    numbers = numbers_of(clip)
    with atomic_path(files.animals) as lines, closing(chain.monitor(lines)) as monitor:
        for frame in islice(clip.frames(), max_frames):
            monitor.update(frame.image, _true_animals(frame, numbers), frame.index, frame.timestamp_s)
            progress.update()
    write_json(files.record, {"identity": dict(identity), "animals_sha256": sha256_of(files.animals)})


def is_described(files: ClipFiles, identity: Mapping[str, Any]) -> bool:
    """Return whether `describe_truth` finished a clip with the same identity, and its file is whole."""
    try:
        record = json.loads(files.record.read_text(encoding="utf-8"))
        return bool(record == {"identity": dict(identity), "animals_sha256": sha256_of(files.animals)})
    except (OSError, ValueError):
        return False


def _true_animals(frame: Frame, numbers: Mapping[str, int]) -> _TrueAnimals:
    animals = animals_of_truth(frame)
    if animals is None:
        return _TrueAnimals((), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), None)
    ids = tuple(numbers[name] for name in animals.names)
    return _TrueAnimals(ids, animals.boxes_xyxy, np.ones(len(ids), np.float32), animals.masks)
