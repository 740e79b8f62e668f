"""The record of each animal: what it did in each hour, written while the tracker runs.

`RecordWriter` takes the animals of each frame and adds up, per animal and hour: time budget, distance, visits,
neighbours, drift of the embedding. The running hour is written when an animal is first seen in it and every `flush_s`
seconds too, and taken up again after a restart.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pl_distill.reid.hour_tally import HourTally, owners_of, places_of
from pl_distill.reid.pace import PaceWatch
from pl_distill.reid.pen_map import PenMap
from pl_distill.reid.record_files import (
    HOUR_S,
    RecordError,
    Row,
    begin_of_hour,
    day_file,
    require_behaviours,
    rows_of_hour,
    upsert,
    written_as,
)
from pl_distill.reid.record_schema import BEHAVIOURS, record_schema
from pl_distill.reid.storage import Vectors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sighting:
    """One animal in one frame.

    Args:
        animal: Its name.
        box_xyxy: (4,), pixels.
        behaviour: Its class, or None where it has none.
        embedding: (D,), unit length, or None.
        number: The tracker's number of it, by which its row follows the pool's identities; None: it keeps its name.
        is_renamed: Whether the number was another track's until now: the animal was elsewhere, and has not walked here.
    """

    animal: str
    box_xyxy: NDArray[Any]
    behaviour: str | None = None
    embedding: Vectors | None = None
    number: int | None = None
    is_renamed: bool = False


SETTLE_S = 1.0
"""An animal's place is the median of its centres over so long: a mask that flickers for a moment moves nobody."""

RESTART_S = 300.0
"""An animal that was at a place before a restart, and is there so soon afterwards, has not left it: nobody saw it."""


@dataclass
class _Memory:
    """What outlives an hour: where the animal was, and since when it is where."""

    time_s: float
    anchor_m: NDArray[np.float64]
    last_at_s: dict[str, float] = field(default_factory=dict)
    centres: deque[tuple[float, NDArray[np.float64]]] = field(default_factory=deque)
    is_settled: bool = False

    def settle(self, time_s: float, centre_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take the centre of a box, and give the median of the last ones, (2,), the lower of two: never a mean.

        Until there is a second of them the animal's anchor goes with it.
        """
        self.centres.append((time_s, centre_m))
        while self.centres[0][0] <= time_s - SETTLE_S:
            self.centres.popleft()
            self.is_settled = True
        lasting = np.sort(np.stack([centre for _, centre in self.centres]), axis=0)
        middle: NDArray[np.float64] = lasting[(len(lasting) - 1) // 2]
        if not self.is_settled:
            self.anchor_m = middle
        return middle

    def begin_anew(self, centre_m: NDArray[np.float64]) -> None:
        """Forget where the animal was: it was not seen for a while, or another one was taken for it."""
        self.anchor_m, self.is_settled = centre_m, False
        self.centres.clear()


class RecordWriter:
    """Adds up what the animals of one camera do, and writes it.

    Args:
        record: Folder of the record; made when the first row is written.
        camera: Name of the camera.
        pen: Where things are in its picture.
        behaviours: Names of the classes; each has a column.
        references: Mean embedding of each animal on its first day, (D,), of length 1, from which it drifts; of who is
            missing the first hour that this writer sees, whose own drift is null, takes its place.
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
        self._tallies: dict[str, HourTally] = {}
        # Of the hour before, with what each drifts from in it: who was out of sight at its end may come back at once.
        self._ended: dict[str, tuple[HourTally, Vectors | None]] = {}
        self._memory: dict[str, _Memory] = {}
        self._flushed_s = -np.inf
        self._day: date | None = None
        self._is_left_out = False
        self._pace = PaceWatch(camera, self._pen.max_gap_s)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def observe(self, time_s: float, sightings: Sequence[Sighting], strangers: Sequence[NDArray[Any]] = ()) -> None:
        """Take the animals of one frame; two sightings of one animal count once.

        Args:
            time_s: Seconds since 1970 (UTC), rising; a step over a full hour is divided between both rows.
            sightings: The recognised animals.
            strangers: Boxes, (4,) in pixels, of those that are not recognised yet: they are neighbours without a name.
        """
        self._pace.observe(time_s)
        seen = {one.animal: one for one in sightings}
        centres = {name: self._pen.centre_m(one.box_xyxy) for name, one in seen.items()}
        unnamed = [self._pen.centre_m(box) for box in strangers]
        hour = begin_of_hour(time_s)
        if any(tally.hour != hour for tally in self._tallies.values()):
            self._end_hour()
        self._complete(time_s, seen, centres, unnamed)
        self._enter(hour.date())
        is_due = not seen.keys() <= self._tallies.keys()
        for name, one in seen.items():
            tally = self._tallies.get(name) or self._take_up(name, hour)
            if name not in self._memory:  # a restart in the middle of a visit is no second one
                at_s = {place: self._last_at_s(place, last_s, one, time_s) for place, last_s in tally.last_at_s.items()}
                known_s = {place: last_s for place, last_s in at_s.items() if last_s is not None}
                self._memory[name] = _Memory(time_s, centres[name], known_s)
            memory = self._memory[name]
            tally.last_at_s = memory.last_at_s
            step_s = max(time_s - memory.time_s, 0.0)
            unseen = step_s > self._pen.max_gap_s
            if unseen:
                step_s = 0.0
            if unseen or one.is_renamed:
                memory.begin_anew(centres[name])
            memory.time_s = time_s
            self._count(tally, one, centres, unnamed, min(step_s, time_s - hour.timestamp()))
            self._follow(tally, memory, one, centres[name], step_s, time_s)
        if is_due or time_s - self._flushed_s >= self._flush_s:
            self.flush()
            self._flushed_s = time_s

    def check(self, begin: datetime, end: datetime | None = None) -> None:
        """Refuse what could not be written, before a frame is tracked.

        Args:
            begin: Of the run.
            end: The moment after its last frame; None where nobody knows, as of a camera.

        Raises:
            RecordError: The camera's name is no name of a folder, or the file of a day that the run touches names other
                behaviours or is damaged.
        """
        last_s = begin.timestamp() if end is None else max(begin.timestamp(), end.timestamp() - 1e-3)
        day, last = begin_of_hour(begin.timestamp()).date(), begin_of_hour(last_s).date()
        while day <= last:
            require_behaviours(day_file(self._record, self._camera, day), self._behaviours)
            day += timedelta(days=1)

    def flush(self) -> None:
        """Write the running hour as far as it is known."""
        if not self._is_left_out:
            self._write({name: (tally, self._references.get(name)) for name, tally in self._tallies.items()})

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        self._tallies.clear()
        self._ended.clear()

    def _write(self, tallies: Mapping[str, tuple[HourTally, Vectors | None]]) -> None:
        rows = [
            tally.row(name, self._camera, reference, self._behaviours)
            for name, (tally, reference) in tallies.items()
            if tally.seen_s or tally.embeddings
        ]
        if rows:
            upsert(self._record, rows, self._behaviours)

    def _enter(self, day: date) -> None:
        """Look whether a day that begins in mid-run can be written: a run must not end at midnight.

        The day is left out, with an error in the log, where it cannot; a writer's first day is refused elsewhere.
        """
        if day == self._day:
            return
        self._is_left_out = False
        if self._day is not None:
            try:
                require_behaviours(day_file(self._record, self._camera, day), self._behaviours)
            except RecordError as error:
                self._is_left_out = True
                log.error("camera '%s' goes on without a record of %s: %s", self._camera, day, error)
        self._day = day

    def _end_hour(self) -> None:
        """Write the hours that are over; who was first seen in one of them drifts from it."""
        self.flush()
        of_hour = {name: (tally, self._references.get(name)) for name, tally in self._tallies.items()}
        self._ended = {} if self._is_left_out else of_hour
        for name, tally in self._tallies.items():
            if (direction := tally.direction()) is not None:
                self._references.setdefault(name, direction)
        self._tallies.clear()

    def _complete(
        self,
        time_s: float,
        seen: Mapping[str, Sighting],
        centres: Mapping[str, NDArray[np.float64]],
        unnamed: Sequence[NDArray[np.float64]],
    ) -> None:
        """Give the row of an hour that is over what of an animal's step lies before the full hour."""
        if not self._ended:
            return
        completed = {}
        for name in seen.keys() & self._ended.keys():
            (tally, reference), last_s = self._ended.pop(name), self._memory[name].time_s
            if 0 <= time_s - last_s <= self._pen.max_gap_s:
                self._count(tally, seen[name], centres, unnamed, tally.hour.timestamp() + HOUR_S - last_s)
                completed[name] = (tally, reference)
        self._write(completed)
        over_s = time_s - self._pen.max_gap_s - HOUR_S
        self._ended = {name: one for name, one in self._ended.items() if one[0].hour.timestamp() >= over_s}

    def _count(
        self,
        tally: HourTally,
        one: Sighting,
        centres: Mapping[str, NDArray[np.float64]],
        unnamed: Sequence[NDArray[np.float64]],
        step_s: float,
    ) -> None:
        """Add a stretch of time that ends with this sighting."""
        pen, here = self._pen, centres[one.animal]
        tally.seen_s += step_s
        if one.number is not None:
            track = (self._session, one.number)
            tally.tracks[track] = tally.tracks.get(track, 0.0) + step_s
        if one.behaviour in self._behaviours:
            tally.behaviour_s[str(one.behaviour)] = tally.behaviour_s.get(str(one.behaviour), 0.0) + step_s
        for place in tally.at_s:
            if pen.is_at(place, one.box_xyxy):
                tally.at_s[place] += step_s
        away = {name: float(np.hypot(*(there - here))) for name, there in centres.items() if name != one.animal}
        others = [float(np.hypot(*(there - here))) for there in unnamed]
        tally.neighbour_s += step_s * sum(distance <= pen.reach_m for distance in (*away.values(), *others))
        nearest = min(away, key=lambda name: away[name], default=None)
        if nearest is not None and away[nearest] <= min(others, default=np.inf):
            tally.nearest_s[nearest] = tally.nearest_s.get(nearest, 0.0) + step_s

    def _follow(
        self, tally: HourTally, memory: _Memory, one: Sighting, here: NDArray[np.float64], step_s: float, time_s: float
    ) -> None:
        """Add what happens at a moment: a way that was made, a visit that begins, an embedding."""
        pen = self._pen
        place_m = memory.settle(time_s, here)
        moved = float(np.hypot(*(place_m - memory.anchor_m)))
        if moved > pen.step_m + pen.max_speed_m_s * step_s:  # the track went over to another animal, or came back
            memory.anchor_m = place_m
        elif moved >= pen.step_m:
            tally.distance_m += moved
            memory.anchor_m = place_m
        for place in tally.visits:
            if pen.is_at(place, one.box_xyxy):
                # between frames that lie further apart than a visit's pause, nobody saw the animal leave
                if time_s - memory.last_at_s.get(place, -np.inf) > max(pen.visit_gap_s, pen.max_gap_s):
                    tally.visits[place] += 1
                memory.last_at_s[place] = time_s
        if one.embedding is not None:
            tally.add_embedding(one.embedding)

    def _last_at_s(self, place: str, written_s: float, one: Sighting, time_s: float) -> float | None:
        """Say when an animal was last at a place, when a writer before this one wrote a time; None: not known."""
        if self._pen.is_at(place, one.box_xyxy) and not RESTART_S < abs(time_s - written_s) < np.inf:
            return time_s  # it is still there, and nobody saw it leave
        return written_s if written_s <= time_s else None  # a visit's pause decides

    def _take_up(self, name: str, hour: datetime) -> HourTally:
        """Begin an hour, or go on with the one that a writer before this left; of the hour before, with its visits."""
        places, may_resume = self._pen.places, self._resume and not self._is_left_out
        tally = HourTally(hour, self._session, visits=dict.fromkeys(places, 0), at_s=dict.fromkeys(places, 0.0))
        rows = rows_of_hour(self._record, self._camera, hour) if may_resume else []
        for row in rows:
            if name == written_as(row) == row["animal"]:  # else it is another animal's by now
                tally.resume(row, self._behaviours)
        tally.owners = owners_of((row, row["animal"]) for row in rows)
        if may_resume and name not in self._memory:
            known = _latest_places(name, rows) or ({} if tally.last_at_s else self._places_before(name, hour))
            tally.last_at_s = {**tally.last_at_s, **known}
        self._tallies[name] = tally
        return tally

    def _places_before(self, name: str, hour: datetime) -> dict[str, float]:
        """Say when an animal was last where, by its row of the hour before; of a damaged file nothing is known."""
        try:
            rows = rows_of_hour(self._record, self._camera, hour - timedelta(hours=1))
        except RecordError as error:  # maybe yesterday's file, which this run does not write
            log.warning("visits of '%s' begin anew: %s", name, error)
            return {}
        return _latest_places(name, rows)


def _latest_places(name: str, rows: Sequence[Row]) -> dict[str, float]:
    """Say when an animal was last where by all rows that are its own by now, under whatever name they were written."""
    found: dict[str, float] = {}
    for row in rows:
        if row["animal"] == name:
            for place, time_s in places_of(row).items():
                found[place] = max(time_s, found.get(place, time_s))
    return found
