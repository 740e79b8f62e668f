"""Links the tracker's short identities into animals, over gaps, days and restarts.

One identifier serves one camera. A track is asked about when enough of its embeddings are in; all that wait in a frame
are matched together, so that no two of them become one animal. Every link is in the pool's log and can be undone.
What a track shows before it has a name is held in memory and offered to the slots of its animal when it gets one: the
pool keeps as much of an animal that the tracker loses every minute as of one that it follows all day. The gallery
learns all that was held: one vector a slot is little of an animal that was met a moment ago. A restart reads the slots.
"""

import fcntl
import logging
import os
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from datamodules.files import file_name_of
from pl_distill.reid.by_animal import vectors_by_animal
from pl_distill.reid.errors import PoolError
from pl_distill.reid.identify_policy import CALIBRATED, CALIBRATED_EMBEDDER, IdentifierPolicy
from pl_distill.reid.identities import link, new_name
from pl_distill.reid.matching import match_frame
from pl_distill.reid.pool import EmbeddingPool, Revision
from pl_distill.reid.samples import Sample
from pl_distill.reid.storage import Vectors
from pl_distill.reid.track_book import UNKNOWN

log = logging.getLogger(__name__)

HELD_S = 10.0
"""So long an animal waits for its own track to come back from behind another before it can be a second one's."""

NEWEST = 24
"""So many embeddings of a waiting track are kept, or as many as it is asked about with: all are compared each time."""

FORGOTTEN_S = 3600.0
"""After so long without a sight of it, a track's waiting evidence is dropped: most have ended."""


@dataclass
class _Waiting:
    """A track that is not recognised yet, with its newest embeddings: one that never is must not grow.

    Args:
        times_s: When each was seen.
        vectors: The embeddings.
        samples: For the pool: of each of the last slots the first embedding that is good enough.
        seen: How many there have been in all.
    """

    times_s: deque[float]
    vectors: deque[Vectors]
    samples: deque[Sample]
    seen: int = 0


class Identifier:
    """Says which animal each track of a camera is.

    Args:
        pool: Where embeddings are kept; its animals are the gallery.
        camera: Name of the camera.
        session: Name of this run of the tracker; track numbers start anew in each.
        policy: When to ask, and how.

    Raises:
        PoolError: Another process or identifier has this camera's name.
    """

    def __init__(self, pool: EmbeddingPool, camera: str, session: str, policy: IdentifierPolicy | None = None) -> None:
        self._pool, self._camera, self._session = pool, camera, session
        self._policy = policy or IdentifierPolicy()
        self._lock = _lock_camera(pool.path, camera)
        self._match = self._policy.completed_match()
        if pool.embedder != CALIBRATED_EMBEDDER and self._match.limits in [one.limits for one in CALIBRATED.values()]:
            log.warning(
                "camera '%s' names animals by the threshold %g and the margin %g of the shipped embedder, but its "
                "embeddings are of %s: names may mean nothing. Give --identify.match.threshold and margin; `pl-distill "
                "reid year --embedder` finds them",
                camera, *self._match.limits, pool.embedder[:12],
            )  # fmt: skip
        self._gallery = self._policy.make_gallery()
        self._waiting: dict[int, _Waiting] = {}
        self._held: dict[str, tuple[int, float]] = {}  # the track that showed each animal last, and when
        self._read: dict[str, Revision] = {}  # what the gallery holds of the pool
        self._refresh()

    def __enter__(self) -> "Identifier":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the camera's name free; the pool stays open."""
        self._lock.close()

    def observe(
        self, time_s: float, numbers: Sequence[int], embeddings: Vectors, quality: Sequence[float] | None = None
    ) -> Mapping[int, str]:
        """Take the animals of one frame.

        Args:
            time_s: Seconds since 1970 (UTC).
            numbers: (N,) the tracker's numbers.
            embeddings: (N, D), unit length.
            quality: (N,) of the crops, 0 to 1.

        Returns:
            Number -> animal, of the tracks that are recognised.

        Raises:
            PoolError: A number stands twice, or an embedding is none.
        """
        if len(set(numbers)) != len(numbers):
            raise PoolError(
                f"camera '{self._camera}'", f"gives the tracks {sorted(numbers)}", "each number once in a frame",
                "Two cameras need two names, and an identifier each.",
            )  # fmt: skip
        qualities = [1.0] * len(numbers) if quality is None else list(quality)
        samples = [
            Sample(self._camera, self._session, number, time_s, vector, good)
            for number, vector, good in zip(numbers, embeddings, qualities, strict=True)
        ]
        for sample in samples:
            self._pool.check(sample)
        named = self._named(numbers)
        known = [sample for sample in samples if sample.number in named]
        before = {animal: self._pool.revision(animal) for animal in named.values()}
        for sample, is_kept in zip(known, self._pool.offer(known), strict=True):
            if is_kept:
                self._learn(named[sample.number], [time_s], [sample.vector], before)
        for sample in samples:
            if sample.number not in named:
                self._hold(sample)
        for number in [one for one, waiting in self._waiting.items() if time_s - waiting.times_s[-1] > FORGOTTEN_S]:
            del self._waiting[number]
        self._ask(numbers, set(named.values()), time_s)
        named = self._named(numbers)
        self._held |= {animal: (number, time_s) for number, animal in named.items()}
        return named

    def _hold(self, sample: Sample) -> None:
        """Remember what a track without a name shows."""
        if sample.number not in self._waiting:
            most = max(NEWEST, self._policy.evidence)
            self._waiting[sample.number] = _Waiting(deque(maxlen=most), deque(maxlen=most), deque(maxlen=most))
        waiting, sampling = self._waiting[sample.number], self._pool.sampling
        waiting.times_s.append(sample.time_s)
        waiting.vectors.append(sample.vector)
        waiting.seen += 1
        last = sampling.slot_of(waiting.samples[-1].time_s) if waiting.samples else None
        if sample.quality >= sampling.min_quality and sampling.slot_of(sample.time_s) != last:
            waiting.samples.append(sample)

    def _named(self, numbers: Sequence[int]) -> dict[int, str]:
        named = {number: self.animal_of(number) for number in numbers}
        return {number: animal for number, animal in named.items() if animal is not None}

    def track_of(self, number: int) -> int | None:
        """Give the pool's number of a track, None while it is not recognised."""
        return self._pool.find_track(self._camera, self._session, number)

    def animal_of(self, number: int) -> str | None:
        """Give the animal of a track, None while it is not recognised."""
        track = self.track_of(number)
        animal = UNKNOWN if track is None else self._pool.animal_of(track)
        return animal if animal != UNKNOWN else None

    def _ask(self, numbers: Sequence[int], taken: Collection[str], time_s: float) -> None:
        asked = [n for n in numbers if n in self._waiting and len(self._waiting[n].vectors) >= self._policy.evidence]
        if not asked:
            return
        self._refresh()
        gallery, policy = self._gallery.gallery, self._match
        scores = np.stack([gallery.scores(np.stack(self._waiting[n].vectors)).mean(0) for n in asked])
        matches = match_frame(scores, gallery.animals, policy, taken)
        for number, match in zip(asked, matches, strict=True):
            animal = match.animal
            if animal is not None and self._may_come_back(animal, time_s):
                continue
            full = policy.herd is not None and len(self._pool.animals) >= policy.herd  # each new one fills it up
            tired = self._waiting[number].seen >= self._policy.patience
            # It looks like an animal that another track is given now: in the next frame that one holds it.
            is_rival = match.verdict == "new" and match.score >= policy.limits[0]
            if (match.verdict == "unsure" or is_rival) and not (tired and (animal is not None or not full)):
                continue
            if match.verdict == "new" and full:
                continue
            if match.verdict == "new" or (match.verdict == "unsure" and not full):
                animal = new_name(self._pool)
                self._read[animal] = self._pool.revision(animal)  # it has nothing to be read yet
            assert animal is not None
            self._bind(number, animal, f"{match.verdict}, score {match.score:.3f}, margin {match.margin:.3f}")

    def _may_come_back(self, animal: str, time_s: float) -> bool:
        """Whether a track showed the animal a moment ago, and is out of sight: it may go on to show it."""
        number, seen_s = self._held.get(animal, (-1, -HELD_S))
        return abs(time_s - seen_s) < HELD_S and self.animal_of(number) == animal

    def _refresh(self) -> None:
        """Learn what other cameras saw, and forget what was merged, split or undone."""
        present = self._pool.animals
        for name in self._read.keys() - set(present):
            self._gallery.forget(name)
            del self._read[name]
        anew = []
        for name in present:
            now, read = self._pool.revision(name), self._read.get(name)
            if now == read:
                continue
            if read is None or now.moves != read.moves:
                self._gallery.forget(name)
                anew.append(name)
            elif len((stored := self._pool.vectors([name], after=read.newest)).ids):
                self._gallery.add(name, stored.times_s, stored.vectors)
            self._read[name] = now
        for stored in vectors_by_animal(self._pool, anew):
            self._gallery.add(str(stored.animals[0]), stored.times_s, stored.vectors)

    def _learn(
        self, animal: str, times_s: Sequence[float], vectors: Sequence[Vectors], before: Mapping[str, Revision]
    ) -> None:
        """Take what this camera saw of an animal.

        Args:
            animal: Its name.
            times_s: When.
            vectors: Its embeddings; the pool holds some of them by now.
            before: State of the animal in the pool before that: one that has changed since it was read is read later.
        """
        now = self._pool.revision(animal)
        if self._read.get(animal) == before[animal] and now.moves == before[animal].moves:
            self._gallery.add(animal, np.array(times_s), np.stack(vectors))
            self._read[animal] = now

    def _bind(self, number: int, animal: str, reason: str) -> None:
        waiting, before = self._waiting.pop(number), {animal: self._pool.revision(animal)}
        with self._pool.transaction():
            track = self._pool.add_track(self._camera, self._session, number)
            link(self._pool, [track], animal, reason)
            self._pool.offer(list(waiting.samples))
        self._learn(animal, waiting.times_s, waiting.vectors, before)


def _lock_camera(folder: Path, camera: str) -> IO[str]:
    """Hold a camera's name as long as the file stays open; the system lets go of it even after a kill."""
    path = folder / f"camera-{file_name_of(camera)}.lock"
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise PoolError(
            f"camera '{camera}'", f"is in use by process {holder}", "a name of its own for each camera",
            "Two cameras of one name would mix their tracks: name this one otherwise.",
        ) from error  # fmt: skip
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
