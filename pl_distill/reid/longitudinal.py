"""The record of each animal: what it did in each hour, written while the tracker runs.

`RecordWriter` takes the animals of each frame and adds up, per animal and hour: time budget, distance, visits,
neighbours, drift of the embedding. The running hour is written when an animal is first seen in it and every `flush_s`
seconds too, and taken up again after a restart.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pl_distill.errors import ConfigError
from pl_distill.reid.record_files import (
    Row,
    begin_of_hour,
    day_file,
    require_behaviours,
    rows_of_hour,
    upsert,
    written_as,
)
from pl_distill.reid.record_schema import BEHAVIOURS, behaviour_column, record_schema
from pl_distill.reid.storage import Vectors

log = logging.getLogger(__name__)

_JUDGED = 20
"""So many steps between frames are looked at together: one pause, or a pen that is empty for a while, is not slow."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PenMap:
    """Where things are in a camera's picture, and how large a metre is.

    Args:
        pixels_per_m: Pixels of a metre on the floor.
        feeder_xyxy: Box around the feeder in pixels; None: no visits are counted.
        drinkers_xyxy: Boxes around the drinkers.
        reach_m: Distance between centres within which another animal is a neighbour.
        step_m: Movements of the centre below this are jitter.
        visit_gap_s: A visit goes on over a pause of this length.
        max_gap_s: After a longer time unseen, the time between is not counted.
    """

    pixels_per_m: float = 100.0
    feeder_xyxy: Box | None = None
    drinkers_xyxy: tuple[Box, ...] = ()
    reach_m: float = 1.0
    step_m: float = 0.15
    visit_gap_s: float = 10.0
    max_gap_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.pixels_per_m > 0:
            raise ConfigError("map.pixels_per_m", f"is {self.pixels_per_m}", "above 0", "Measure the pen's length.")


@dataclass(frozen=True)
class Sighting:
    """One animal in one frame.

    Args:
        animal: Its name.
        box_xyxy: (4,), pixels.
        behaviour: Its class, or None where it has none.
        embedding: (D,), unit length, or None.
        number: The tracker's number of it, by which its row follows the pool's identities; None: it keeps its name.
    """

    animal: str
    box_xyxy: NDArray[Any]
    behaviour: str | None = None
    embedding: Vectors | None = None
    number: int | None = None


@dataclass
class _Tally:
    """An animal's running hour."""

    hour: datetime
    began_in: str | None  # the session
    seen_s: float = 0.0
    distance_m: float = 0.0
    visits: dict[str, int] = field(default_factory=lambda: {"feeder": 0, "drinker": 0})
    at_s: dict[str, float] = field(default_factory=lambda: {"feeder": 0.0, "drinker": 0.0})
    neighbour_s: float = 0.0
    nearest_s: dict[str, float] = field(default_factory=dict)
    behaviour_s: dict[str, float] = field(default_factory=dict)
    embeddings: int = 0
    drift: float | None = None
    total: Vectors | None = None
    base_embeddings: int = 0
    base_drift: float = 0.0
    tracks: dict[tuple[str, int], float] = field(default_factory=dict)  # (session, number) -> seconds


@dataclass
class _Memory:
    """What outlives an hour: where the animal was, and since when it is where."""

    time_s: float
    anchor_m: NDArray[np.float64]
    last_at_s: dict[str, float] = field(default_factory=dict)


class RecordWriter:
    """Adds up what the animals of one camera do, and writes it.

    Args:
        record: Folder of the record; made when the first row is written.
        camera: Name of the camera.
        pen: Where things are in its picture.
        behaviours: Names of the classes; each has a column.
        references: Mean embedding of each animal on its first day, (D,), of length 1, from which it drifts; of who is
            missing the first hour that this writer sees, which is no drift itself, takes its place.
        flush_s: How often the running hour is written: what a kill loses at most. An animal's row is there from its
            first sighting on.
        resume: Whether an hour that is there is gone on with; else it is replaced.
        session: Name of the tracker's run, as the pool has it: numbers start anew in each.
    """

    def __init__(
        self,
        record: str | Path,
        camera: str,
        pen: PenMap | None = None,
        behaviours: Sequence[str] = BEHAVIOURS,
        references: Mapping[str, Vectors] | None = None,
        flush_s: float = 60.0,
        resume: bool = True,
        session: str = "",
    ) -> None:
        record_schema(behaviours)  # refuses names that clash before anything is counted
        self._record, self._camera, self._pen = Path(record), camera, pen or PenMap()
        self._behaviours, self._flush_s = tuple(behaviours), flush_s
        self._references = dict(references or {})
        self._resume, self._session = resume, session
        self._tallies: dict[str, _Tally] = {}
        self._memory: dict[str, _Memory] = {}
        self._flushed_s = -np.inf
        self._observed_s: float | None = None
        self._steps_s: deque[float] = deque(maxlen=_JUDGED)
        self._is_slow = False

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def observe(self, time_s: float, sightings: Sequence[Sighting]) -> None:
        """Take the animals of one frame; two sightings of one animal count once.

        Args:
            time_s: Seconds since 1970 (UTC), rising.
            sightings: The recognised animals.
        """
        self._judge_pace(time_s)
        seen = {one.animal: one for one in sightings}
        centres = {name: self._centre_m(one) for name, one in seen.items()}
        hour = begin_of_hour(time_s)
        if any(tally.hour != hour for tally in self._tallies.values()):
            self.flush()
            for name, tally in self._tallies.items():
                if tally.total is not None:
                    self._references.setdefault(name, _unit(tally.total))
            self._tallies.clear()
        is_due = not seen.keys() <= self._tallies.keys()
        for name, one in seen.items():
            tally = self._tallies.get(name) or self._take_up(name, hour)
            if name not in self._memory:  # a restart in the middle of a visit is no second one
                here = {place: time_s for place, visits in tally.visits.items() if visits and self._is_at(place, one)}
                self._memory[name] = _Memory(time_s, centres[name], here)
            memory = self._memory[name]
            step_s = min(max(time_s - memory.time_s, 0.0), self._pen.max_gap_s)
            if time_s - memory.time_s > self._pen.max_gap_s:
                step_s, memory.anchor_m = 0.0, centres[name]
            memory.time_s = time_s
            self._add(tally, memory, one, centres, step_s, time_s)
        if is_due or time_s - self._flushed_s >= self._flush_s:
            self.flush()
            self._flushed_s = time_s

    def check(self, begin: datetime) -> None:
        """Refuse what could not be written, before a frame is tracked.

        Args:
            begin: Of the run.

        Raises:
            RecordError: The camera's name is no name of a folder, or the file of that day names other behaviours.
        """
        day = begin_of_hour(begin.timestamp()).date()
        require_behaviours(day_file(self._record, self._camera, day), self._behaviours)

    def flush(self) -> None:
        """Write the running hour as far as it is known."""
        rows = [self._row(name, tally) for name, tally in self._tallies.items() if tally.seen_s or tally.embeddings]
        if rows:
            upsert(self._record, rows, self._behaviours)

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        self._tallies.clear()

    def _judge_pace(self, time_s: float) -> None:
        """Warn once where most steps are so long that nothing of them is counted."""
        if self._observed_s is not None:
            self._steps_s.append(time_s - self._observed_s)
        self._observed_s = time_s
        if self._is_slow or len(self._steps_s) < _JUDGED:
            return
        typical = median_low(self._steps_s)
        if typical > self._pen.max_gap_s:
            self._is_slow = True
            log.warning(
                "camera '%s': observations come about %.1f s apart, and the record counts nothing of steps above %g s: "
                "its seconds and metres will be 0. Raise --place.max_gap_s (of `record build` --map.max_gap_s), or "
                "take a faster camera or device",
                self._camera, typical, self._pen.max_gap_s,
            )  # fmt: skip

    def _add(
        self, tally: _Tally, memory: _Memory, one: Sighting, centres: Mapping[str, NDArray[np.float64]], step_s: float,
        time_s: float,
    ) -> None:  # fmt: skip
        pen, here = self._pen, centres[one.animal]
        tally.seen_s += step_s
        if one.number is not None:
            track = (self._session, one.number)
            tally.tracks[track] = tally.tracks.get(track, 0.0) + step_s
        moved = float(np.hypot(*(here - memory.anchor_m)))
        if moved >= pen.step_m:
            tally.distance_m += moved
            memory.anchor_m = here
        if one.behaviour in self._behaviours:
            tally.behaviour_s[str(one.behaviour)] = tally.behaviour_s.get(str(one.behaviour), 0.0) + step_s
        for place in tally.visits:
            if self._is_at(place, one):
                if time_s - memory.last_at_s.get(place, -np.inf) > pen.visit_gap_s:
                    tally.visits[place] += 1
                memory.last_at_s[place] = time_s
                tally.at_s[place] += step_s
        away = {name: float(np.hypot(*(there - here))) for name, there in centres.items() if name != one.animal}
        tally.neighbour_s += step_s * sum(distance <= pen.reach_m for distance in away.values())
        if away:
            nearest = min(away, key=lambda name: away[name])
            tally.nearest_s[nearest] = tally.nearest_s.get(nearest, 0.0) + step_s
        if one.embedding is not None:
            tally.total = one.embedding.copy() if tally.total is None else tally.total + one.embedding
            tally.embeddings += 1

    def _is_at(self, place: str, one: Sighting) -> bool:
        feeders = (self._pen.feeder_xyxy,) if self._pen.feeder_xyxy else ()
        return any(_touch(one.box_xyxy, box) for box in (feeders if place == "feeder" else self._pen.drinkers_xyxy))

    def _centre_m(self, one: Sighting) -> NDArray[np.float64]:
        left, top, right, bottom = (float(value) for value in one.box_xyxy)
        return np.array((left + right, top + bottom)) / (2 * self._pen.pixels_per_m)

    def _take_up(self, name: str, hour: datetime) -> _Tally:
        """Begin an hour, or go on with the one that a writer before this left."""
        tally = _Tally(hour, self._session)
        for row in rows_of_hour(self._record, self._camera, hour) if self._resume else ():
            if not name == written_as(row) == row["animal"]:  # else it is another animal's by now
                continue
            tally.began_in = row.get("began_in")
            tally.seen_s, tally.distance_m = row["seen_s"], row["distance_m"]
            for place in tally.visits:
                tally.visits[place], tally.at_s[place] = row[f"{place}_visits"], row[f"{place}_s"]
            tally.neighbour_s = row["neighbours"] * row["seen_s"]
            nearest = row.get("nearest_as") or row["nearest"]
            tally.nearest_s = {nearest: row["nearest_s"]} if nearest is not None else {}
            tally.behaviour_s = {one: row.get(behaviour_column(one)) or 0.0 for one in self._behaviours}
            tally.base_embeddings, tally.base_drift = row["embeddings"], row["drift"] or 0.0
            tally.tracks = {(one["session"], one["number"]): one["seen_s"] for one in row.get("tracks") or ()}
        self._tallies[name] = tally
        return tally

    def _drift(self, name: str, tally: _Tally) -> float | None:
        """Mean over what was there before a restart and what came since."""
        drift, reference = 0.0, self._references.get(name)
        if tally.total is not None and reference is not None:
            drift = 1 - float(_unit(tally.total) @ reference)
        both = tally.base_embeddings + tally.embeddings
        return (tally.base_drift * tally.base_embeddings + drift * tally.embeddings) / both if both else None

    def _row(self, name: str, tally: _Tally) -> Row:
        nearest = max(tally.nearest_s, key=lambda one: tally.nearest_s[one]) if tally.nearest_s else None
        return {
            "animal": name,
            "hour": tally.hour,
            "camera": self._camera,
            "seen_s": tally.seen_s,
            "distance_m": tally.distance_m,
            **{f"{place}_visits": number for place, number in tally.visits.items()},
            **{f"{place}_s": seconds for place, seconds in tally.at_s.items()},
            "neighbours": tally.neighbour_s / tally.seen_s if tally.seen_s else 0.0,
            "nearest": nearest,
            "nearest_s": tally.nearest_s[nearest] if nearest is not None else 0.0,
            "embeddings": tally.base_embeddings + tally.embeddings,
            "drift": self._drift(name, tally),
            "tracked_as": name,
            "nearest_as": nearest,
            "tracks": [
                {"session": session, "number": number, "seen_s": seconds}
                for (session, number), seconds in tally.tracks.items()
            ],
            "began_in": tally.began_in,
            **{behaviour_column(one): tally.behaviour_s.get(one, 0.0) for one in self._behaviours},
        }


def _unit(vector: Vectors) -> Vectors:
    """Return a vector's direction."""
    found: Vectors = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return found


def _touch(box: NDArray[Any], place: Box) -> bool:
    return bool(box[0] <= place[2] and box[2] >= place[0] and box[1] <= place[3] and box[3] >= place[1])
