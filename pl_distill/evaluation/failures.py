"""Every identity switch, every run of misses and every false track: when, where, at what cost, and in what situation.

The events are those that CLEAR MOT counts, so that they add up: there are as many switches as `id_switches`, the boxes
of all miss runs are `misses`, those of all false tracks `false_positives`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from datamodules.clip import Clip
from datamodules.files import write_json
from pl_distill.evaluation.failure_reasons import REASONS, Reason, Scene
from pl_distill.evaluation.mot import FrameEvents, list_events
from pl_distill.evaluation.pairing import FramePair, pair_with_annotations
from pl_distill.evaluation.results import ResultsError
from pl_distill.evaluation.track_files import Tracks
from pl_distill.evaluation.typed_json import JsonTypeError, parse_dataclass

SCHEMA = 1

Kind = Literal["switch", "miss", "false track"]
KINDS: dict[str, str] = {
    "switch": "an animal goes on under another identity",
    "miss": "an animal has no track for some frames",
    "false track": "a track follows no animal for some frames",
}

Name = TypeVar("Name", str, int)

LOOSE = 0.2
"""From this overlap (IoU) on a box that is no match shows that the tracker was there."""


@dataclass(frozen=True)
class Failure:
    """One error of a tracker.

    Args:
        clip: Name of the clip.
        kind: One of `KINDS`.
        reason: The class of the situation in which it began, one of `REASONS`.
        animal: Whom it concerns; of a false track the animal that it covers most, None where there is none.
        tracks: Of a switch the identity before and after, of a false track its own, of a miss none.
        first_frame: The first wrong frame, from 0; of a switch the last right one.
        last_frame: The last wrong frame; of a switch the first one under the other identity.
        start_s: Time of the first frame since the clip began.
        end_s: Time of the last one.
        boxes: What it costs, in judged boxes: animals missed, boxes of the false track, or boxes of the animal under
            the new identity until the next change.
        box_xyxy: Where it began, in pixels: the animal's box, or that of the false track.
        place: The same in words.
        strip: Path of a strip of pictures, relative to the folder of the results; None where none was drawn.
    """

    clip: str
    kind: str
    reason: str
    animal: str | None
    tracks: list[int]
    first_frame: int
    last_frame: int
    start_s: float
    end_s: float
    boxes: int
    box_xyxy: list[float]
    place: str
    strip: str | None = None


@dataclass(frozen=True)
class Total:
    """How often a kind of error began in a situation, and what that cost in boxes."""

    events: int = 0
    boxes: int = 0

    def __add__(self, other: "Total") -> "Total":
        return Total(self.events + other.events, self.boxes + other.boxes)


def find_failures(clip: Clip, tracks: Tracks, frames: int) -> list[Failure]:
    """Return the errors of one clip against its truth, the most costly first.

    Args:
        clip: With its annotations.
        tracks: What was tracked.
        frames: How many frames of the clip were tracked.
    """
    indices = [index for index in sorted(clip.annotations) if index < frames]
    pairs = pair_with_annotations(clip.annotations, tracks, frames)
    events = list_events(pairs)
    finder = _Finder(clip, tracks, dict(zip(indices, pairs, strict=True)), dict(zip(indices, events, strict=True)))
    return sorted(
        [*finder.switches(), *finder.misses(), *finder.false_tracks()],
        key=lambda failure: (-failure.boxes, failure.first_frame, failure.kind, failure.tracks),
    )


def total_failures(failures: Iterable[Failure]) -> dict[str, dict[str, Total]]:
    """Return kind -> reason -> total, in the order of `KINDS` and `REASONS`; what never occurred is left out."""
    sums: dict[tuple[str, str], Total] = {}
    for failure in failures:
        key = (failure.kind, failure.reason)
        sums[key] = sums.get(key, Total()) + Total(1, failure.boxes)
    found = {kind: {reason: sums[kind, reason] for reason in REASONS if (kind, reason) in sums} for kind in KINDS}
    return {kind: by_reason for kind, by_reason in found.items() if by_reason}


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write errors as JSON, whole or not at all: ``totals`` (kind, reason) and ``failures``, the most costly first."""
    totals = {
        kind: {reason: asdict(total) for reason, total in by_reason.items()}
        for kind, by_reason in total_failures(failures).items()
    }
    ordered = sorted(failures, key=lambda failure: -failure.boxes)
    write_json(path, {"schema": SCHEMA, "totals": totals, "failures": [asdict(failure) for failure in ordered]})


def read_failures(path: Path) -> list[Failure]:
    """Read what `write_failures` wrote.

    Raises:
        ResultsError: It is absent, no JSON, of another schema, or a key is missing or of another type.
    """
    fix = "Run `pl-distill evaluate` again."
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(path, f"cannot be read ({error})", "the errors of a tracker", fix) from error
    if (
        not isinstance(content, dict)
        or content.get("schema") != SCHEMA
        or not isinstance(content.get("failures"), list)
    ):
        raise ResultsError(path, "is of another schema", f"schema {SCHEMA}", fix)
    try:
        return [parse_dataclass(Failure, one, f"failures[{n}]") for n, one in enumerate(content["failures"])]
    except JsonTypeError as error:
        raise ResultsError(f"{path}, {error.key}", error.found, error.expected, fix) from error


def place_of(box: Sequence[float] | NDArray[np.floating], width: int, height: int) -> str:
    """Say in words in which ninth of the picture the centre of a box lies."""
    across = ("left", "", "right")[min(int(1.5 * (box[0] + box[2]) / width), 2)]
    down = ("top", "", "bottom")[min(int(1.5 * (box[1] + box[3]) / height), 2)]
    return f"{down} {across}".strip() or "centre"


class _Finder:
    def __init__(
        self, clip: Clip, tracks: Tracks, pairs: Mapping[int, FramePair], events: Mapping[int, FrameEvents]
    ) -> None:
        self._clip, self._tracks, self._pairs, self._events = clip, tracks, pairs, events
        self._scene = Scene(clip)

    def switches(self) -> list[Failure]:
        found: list[Failure] = []
        last: dict[str, tuple[int, int]] = {}  # animal -> frame and track of its last match
        lengths: dict[tuple[str, int], int] = {}  # animal and frame of a switch -> boxes under the new identity
        current: dict[str, int] = {}  # animal -> frame of its last switch
        for index, events in self._events.items():
            for animal in events.switches:
                before, old = last[animal]
                box = self._scene.box(animal, index)
                assert box is not None  # it is matched in this frame
                reason: Reason = self._scene.circumstance(animal, index) or "none of these"
                found.append(self._failure("switch", reason, animal, [old, events.matches[animal]], before, index, box))
                current[animal] = index
            for animal, track in events.matches.items():
                last[animal] = (index, track)
                if animal in current:
                    key = (animal, current[animal])
                    lengths[key] = lengths.get(key, 0) + 1
        return [replace(one, boxes=lengths[one.animal or "", one.last_frame]) for one in found]

    def misses(self) -> list[Failure]:
        runs = _runs(
            {index: events.misses for index, events in self._events.items()},
            {index: list(events.matches) for index, events in self._events.items()},
        )
        found = []
        for animal, frames in runs:
            box = self._scene.box(animal, frames[0])
            assert box is not None  # it is missed in this frame
            reason: Reason | None = self._scene.circumstance(animal, frames[0])
            if reason is None:
                pair = self._pairs[frames[0]]
                overlaps = pair.iou[pair.truth.index(animal)]
                reason = "outline" if overlaps.size and overlaps.max() >= LOOSE else "none of these"
            failure = self._failure("miss", reason, animal, [], frames[0], frames[-1], box)
            found.append(replace(failure, boxes=len(frames)))
        return found

    def false_tracks(self) -> list[Failure]:
        runs = _runs({index: events.false_tracks for index, events in self._events.items()})
        found = []
        for track, frames in runs:
            boxes = self._tracks[frames[0]]
            box = boxes.boxes_xyxy[boxes.ids.index(track)]
            animal = self._scene.covered_most(box, frames[0])
            reason: Reason = "background"
            if animal is not None:
                matched = animal in self._events[frames[0]].matches
                circumstance = self._scene.circumstance(animal, frames[0])
                reason = circumstance or ("double" if matched else "outline")
            failure = self._failure("false track", reason, animal, [track], frames[0], frames[-1], box)
            found.append(replace(failure, boxes=len(frames)))
        return found

    def _failure(
        self,
        kind: Kind,
        reason: Reason,
        animal: str | None,
        tracks: list[int],
        first: int,
        last: int,
        box: NDArray[np.float32],
    ) -> Failure:
        clip = self._clip
        return Failure(
            clip=clip.name,
            kind=kind,
            reason=reason,
            animal=animal,
            tracks=tracks,
            first_frame=first,
            last_frame=last,
            start_s=round(first / clip.fps, 3),
            end_s=round(last / clip.fps, 3),
            boxes=0,
            box_xyxy=[round(float(value), 1) for value in box],
            place=place_of(box, clip.width, clip.height),
        )


def _runs(
    wrong: Mapping[int, Sequence[Name]], right: Mapping[int, Sequence[Name]] | None = None
) -> list[tuple[Name, list[int]]]:
    """Join the frames in which something is wrong, until it is right; without `right`, until it is not wrong."""
    finished: list[tuple[Name, list[int]]] = []
    running: dict[Name, list[int]] = {}
    for index, names in wrong.items():
        for name in list(running):
            if (name not in names) if right is None else (name in right[index]):
                finished.append((name, running.pop(name)))
        for name in names:
            running.setdefault(name, []).append(index)
    finished.extend(running.items())
    return finished
