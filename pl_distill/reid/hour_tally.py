"""One animal's running hour: what is added up, and the row that it becomes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from pl_distill.reid.pen_map import PLACES
from pl_distill.reid.record_files import Row, written_as
from pl_distill.reid.record_schema import behaviour_column
from pl_distill.reid.storage import Vectors
from pl_distill.reid.track_book import UNKNOWN

Owners = Mapping[str, Mapping[str, float]]
"""Name that an animal had when a row of an hour was written -> whose such rows are now -> its share of them, 0 to 1."""


def owners_of(rows: Iterable[tuple[Row, str]]) -> Owners:
    """Say whose the names in one hour's rows are now; two rows of one name may have become two animals', by a split.

    Args:
        rows: Each with the animal whose it is now.
    """
    seen_s: dict[str, dict[str, float]] = {}
    for row, animal in rows:
        of_name = seen_s.setdefault(written_as(row), {})
        of_name[animal] = of_name.get(animal, 0.0) + max(row["seen_s"], 1e-9)  # a first sighting has lasted no time
    return {
        name: {animal: seconds / sum(one.values()) for animal, seconds in one.items()} for name, one in seen_s.items()
    }


def seconds_beside(row: Row) -> dict[str, float]:
    """Give for how long each other animal was the nearest, by the names of then; an older row knows of one alone."""
    each = row.get("nearest_each")
    if each is not None:
        return {one["animal"]: one["seconds"] for one in each}
    nearest = row.get("nearest_as") or row["nearest"]
    return {} if nearest is None else {nearest: row["nearest_s"]}


def by_names_of_now(each: Mapping[str, float], owners: Owners) -> dict[str, float]:
    """Add seconds beside others up by the names that these have now.

    Those beside a name that is two animals' by now are divided as the two were seen.
    """
    lasted: dict[str, float] = {}
    for other, seconds in each.items():
        for name, share in owners.get(other, {other: 1.0}).items():
            lasted[name] = lasted.get(name, 0.0) + share * seconds
    return lasted


def nearest_of(lasted: Mapping[str, float], animal: str) -> tuple[str | None, float]:
    """Give who was nearest to an animal for longest, and for how many seconds.

    Who turned out to be this animal, or has no name any more, was not near it.
    """
    others = {name: seconds for name, seconds in lasted.items() if name not in (animal, UNKNOWN)}
    longest = max(others, key=lambda name: others[name], default=None)
    return longest, others[longest] if longest is not None else 0.0


@dataclass
class HourTally:
    """An animal's running hour.

    Args:
        hour: Its begin.
        began_in: The session that began it; None in records that do not know.
        seen_s: Seconds in which the animal was tracked.
        distance_m: Metres walked.
        visits: Place in the picture -> visits that began.
        at_s: Place in the picture -> seconds there.
        neighbour_s: Seconds with a neighbour, summed over neighbours.
        nearest_s: Other animal -> seconds in which it was the nearest.
        behaviour_s: Behaviour -> seconds.
        tracks: (session, number) -> seconds of the tracks that this rests on.
        last_at_s: Place -> when the animal was last seen there, seconds since 1970, maybe before this hour; infinite in
            rows that know only that it was.
        embeddings: How many came since this process took the hour up.
        total: Their sum, (D,); None without one.
        base_nearest_s: As `nearest_s`, of what a process before this one had counted, by the names of then.
        owners: Whose the names of then are now, see `owners_of`.
        base_embeddings: How many a process before this one had counted.
        base_drift: Their drift; None where there was nothing to drift from.
    """

    hour: datetime
    began_in: str | None
    seen_s: float = 0.0
    distance_m: float = 0.0
    visits: dict[str, int] = field(default_factory=dict)
    at_s: dict[str, float] = field(default_factory=dict)
    neighbour_s: float = 0.0
    nearest_s: dict[str, float] = field(default_factory=dict)
    behaviour_s: dict[str, float] = field(default_factory=dict)
    tracks: dict[tuple[str, int], float] = field(default_factory=dict)
    last_at_s: dict[str, float] = field(default_factory=dict)
    embeddings: int = 0
    total: Vectors | None = None
    base_embeddings: int = 0
    base_drift: float | None = None
    base_nearest_s: dict[str, float] = field(default_factory=dict)
    owners: Owners = field(default_factory=dict)

    def resume(self, row: Row, behaviours: Sequence[str]) -> None:
        """Go on with the row of an hour that a process before this one left."""
        self.began_in = row.get("began_in")
        self.seen_s, self.distance_m = row["seen_s"], row["distance_m"]
        for place in PLACES:
            if row[f"{place}_visits"] is not None:
                self.visits[place], self.at_s[place] = row[f"{place}_visits"], row[f"{place}_s"]
            else:  # it was not in the picture then, and nothing is known of the seconds before
                self.visits.pop(place, None)
                self.at_s.pop(place, None)
        self.last_at_s = places_of(row)
        if row.get("last_at") is None:
            self.last_at_s = {place: math.inf for place, visits in self.visits.items() if visits or self.at_s[place]}
        self.neighbour_s = row["neighbours"] * row["seen_s"]
        self.base_nearest_s = seconds_beside(row)
        self.behaviour_s = {one: row.get(behaviour_column(one)) or 0.0 for one in behaviours}
        self.base_embeddings, self.base_drift = row["embeddings"], row["drift"]
        self.tracks = {(one["session"], one["number"]): one["seen_s"] for one in row.get("tracks") or ()}

    def add_embedding(self, embedding: Vectors) -> None:
        """Count an embedding, (D,), of length 1."""
        self.total = embedding.copy() if self.total is None else self.total + embedding
        self.embeddings += 1

    def direction(self) -> Vectors | None:
        """Mean embedding of what came since the hour was taken up, (D,), of length 1; None without one."""
        if self.total is None:
            return None
        found: Vectors = self.total / max(float(np.linalg.norm(self.total)), 1e-12)
        return found

    def drift(self, reference: Vectors | None) -> float | None:
        """Give 1 - cosine to a reference, (D,), the mean over what was there before a restart and what came since.

        None where nothing was compared: without embeddings, and in an animal's first hour, from which it will drift.
        """
        direction, parts = self.direction(), list[tuple[float, int]]()
        if self.base_drift is not None:
            parts.append((self.base_drift, self.base_embeddings))
        if direction is not None and reference is not None:
            parts.append((1 - float(direction @ reference), self.embeddings))
        both = sum(number for _, number in parts)
        return sum(drift * number for drift, number in parts) / both if both else None

    def row(self, animal: str, camera: str, reference: Vectors | None, behaviours: Sequence[str]) -> Row:
        """Give the columns of `record_schema`."""
        beside = _sum(by_names_of_now(self.base_nearest_s, self.owners), self.nearest_s)
        nearest, nearest_s = nearest_of(beside, animal)
        each = _sum(self.base_nearest_s, self.nearest_s)
        return {
            "animal": animal,
            "hour": self.hour,
            "camera": camera,
            "seen_s": self.seen_s,
            "distance_m": self.distance_m,
            **{f"{place}_visits": self.visits.get(place) for place in PLACES},
            **{f"{place}_s": self.at_s.get(place) for place in PLACES},
            "neighbours": self.neighbour_s / self.seen_s if self.seen_s else 0.0,
            "nearest": nearest,
            "nearest_s": nearest_s,
            "embeddings": self.base_embeddings + self.embeddings,
            "drift": self.drift(reference),
            "tracked_as": animal,
            "nearest_as": nearest,
            "tracks": [
                {"session": session, "number": number, "seen_s": seconds}
                for (session, number), seconds in self.tracks.items()
            ],
            "began_in": self.began_in,
            "nearest_each": [{"animal": other, "seconds": seconds} for other, seconds in each.items()],
            "last_at": [{"place": place, "time_s": time_s} for place, time_s in self.last_at_s.items()],
            **{behaviour_column(one): self.behaviour_s.get(one, 0.0) for one in behaviours},
        }


def places_of(row: Row) -> dict[str, float]:
    """Give for each place when the animal was last there, as a row says; an older one says nothing."""
    return {one["place"]: one["time_s"] for one in row.get("last_at") or ()}


def _sum(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}
