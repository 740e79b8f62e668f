"""The tracks of a pool in memory: whose they are, and how far the slots of each animal are filled."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pl_distill.reid.samples import Sample
from pl_distill.reid.sampling import SamplingPolicy

UNKNOWN = ""
"""Animal of a track that nobody has recognised yet."""

Ask = Callable[..., Sequence[tuple[Any, ...]]]
"""Gives the rows of a query in SQL and the values for its question marks; see `EmbeddingPool.rows`."""

_NUMBERED = re.compile(r"animal-(\d+)")

TrackName = tuple[str, str, int]
"""Camera, session, and the tracker's number."""


class TrackBook:
    """Mirrors the table of tracks; whoever changes the one changes the other.

    Args:
        ask: Asks the pool's file, which is read once.
        sampling: Says which slot a time lies in.

    Attributes:
        number_of: Number of each track by its name.
        animal_of: Name of each track's animal by its number; `UNKNOWN` where nobody has said so.
        with_vectors: Numbers of the tracks that have an embedding.
        filled: The last slot of each animal that has an embedding; of an unknown track, under ``track <number>``.
    """

    def __init__(self, ask: Ask, sampling: SamplingPolicy) -> None:
        self._ask = ask
        self._sampling = sampling
        self._older: dict[tuple[str, int], bool] = {}  # what was asked of slots before the last one
        rows = ask("SELECT track, camera, session, number, animal FROM tracks")
        self.number_of: dict[TrackName, int] = {
            (camera, session, int(number)): int(track) for track, camera, session, number, _ in rows
        }
        self.animal_of = {int(row[0]): str(row[4]) for row in rows}
        self._tracks = Counter(self.animal_of.values())  # of each animal how many: none is listed that has none
        self._highest: int | None = None
        self.with_vectors: set[int] = set()
        self.filled: dict[str, int] = {}
        for track, time_s in ask("SELECT track, epoch_us(max(time)) / 1e6 FROM vectors GROUP BY track"):
            self.with_vectors.add(int(track))
            animal = self.animal_of[int(track)]
            self.fill(animal if animal != UNKNOWN else f"track {track}", float(time_s))

    @property
    def animals(self) -> list[str]:
        """Names of the animals that have a track."""
        return sorted(self._tracks.keys() - {UNKNOWN})

    @property
    def highest_number(self) -> int:
        """The highest N of all names animal-N that an animal has or had, 0 without one; the log is read once."""
        if self._highest is None:
            query = """SELECT DISTINCT unnest(regexp_extract_all(detail, '"(animal-[0-9]+)"', 1)) FROM events"""
            self._highest = 0
            for name in (*self._tracks, *(name for (name,) in self._ask(query))):
                self._raise_highest(name)
        return self._highest

    def add(self, name: TrackName, track: int, animal: str) -> None:
        """Write a new track down under its number."""
        self.number_of[name], self.animal_of[track] = track, animal
        self._tracks[animal] += 1
        self._raise_highest(animal)

    def assign(self, tracks: Iterable[int], animal: str) -> None:
        """Give tracks to an animal, and the slots that they have filled."""
        self._older.clear()
        for track in tracks:
            before, self.animal_of[track] = self.animal_of[track], animal
            self._tracks[animal] += 1
            self._tracks[before] -= 1
            if not self._tracks[before]:
                del self._tracks[before]
            filled = self.filled.get(f"track {track}", -1)
            if animal != UNKNOWN and filled > self.filled.get(animal, -1):
                self.filled[animal] = filled
        self._raise_highest(animal)

    def fill(self, owner: str, time_s: float) -> None:
        """Write down that the slot of a time is filled."""
        slot = self._sampling.slot_of(time_s)
        if slot < self.filled.get(owner, -1):
            self._older[owner, slot] = True
        self.filled[owner] = max(self.filled.get(owner, -1), slot)

    def is_filled(self, owner: str, slot: int) -> bool:
        """Whether a slot has an embedding; of one before the last the file is asked: an old recording may come late."""
        last = self.filled.get(owner, -1)
        if slot >= last:
            return slot == last
        if (owner, slot) not in self._older:
            begin_ms, end_ms = (self._sampling.begin_ms(one) for one in (slot, slot + 1))
            ((found,),) = self._ask(
                "SELECT count(*) FROM vectors JOIN tracks USING (track) "
                "WHERE animal = ? AND time >= make_timestamp(?) AND time < make_timestamp(?)",
                [owner, 1000 * begin_ms, 1000 * end_ms],
            )
            self._older[owner, slot] = found > 0
        return self._older[owner, slot]

    def owner_of(self, sample: Sample) -> str:
        """Whose slot a sample fills: the animal's, or while it is unknown the track's own."""
        name = (sample.camera, sample.session, sample.number)
        track = self.number_of.get(name)
        animal = UNKNOWN if track is None else self.animal_of[track]
        if animal != UNKNOWN:
            return animal
        return f"track {name}" if track is None else f"track {track}"

    def _raise_highest(self, animal: str) -> None:
        if self._highest is not None and (found := _NUMBERED.fullmatch(animal)):
            self._highest = max(self._highest, int(found[1]))
