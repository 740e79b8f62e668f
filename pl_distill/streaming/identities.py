"""Which animal a track follows, told by its looks: tracks that changed places get their identities back.

SAM 3 knows an animal by its memories, and the detection that puts a track right writes itself into them: where animals
cross or lie on each other, their tracks may go on with each other's animal, and stay there. Here every animal has a
mean of how it looked while no other was near; a track that looks like another animal for a while takes its identity.
In the field: re-identification within a sequence, one to one, as the appearance term of DeepSORT (Wojke et al., arXiv
1703.07402), but behind the tracker instead of in its association.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pl_distill.streaming.policy import Appearance

Vector = NDArray[np.float32]


@dataclass
class _Animal:
    """How an animal has looked: the sum of its looks, which fades, and what they weigh; when it was seen last."""

    total: Vector | None = None
    weight: float = 0.0
    seen: int = 0

    def learn(self, look: Vector, decay: float) -> None:
        self.total = look.copy() if self.total is None else decay * self.total + look
        self.weight = decay * self.weight + 1.0


@dataclass
class _Track:
    """Whom a track follows, when it was shown last, and how it looked in moments that its animal has not learned."""

    identity: int
    shown: int
    looks: deque[tuple[int, Vector]] = field(default_factory=deque)

    def since(self, moment: int) -> list[Vector]:
        return [look for seen, look in self.looks if seen > moment]


class Identities:
    """The identities of one stream's tracks, each given to one live track at a time.

    Args:
        rules: When a track takes another animal's identity.
    """

    def __init__(self, rules: Appearance) -> None:
        self.rules = rules
        self._moment = 0
        self._next = 0
        self._tracks: dict[int, _Track] = {}
        self._animals: dict[int, _Animal] = {}

    def of(self, tracks: Iterable[int]) -> tuple[int, ...]:
        """Give the identities of live tracks; a track that has none is a new animal."""
        return tuple(self._track(track).identity for track in tracks)

    def known_as(self, track: int) -> int | None:
        """Return the identity of a track, None for one that was never asked for."""
        return self._tracks[track].identity if track in self._tracks else None

    def remembered(self) -> set[int]:
        """Return all identities that a live track has or that may come back."""
        return set(self._animals)

    def bytes(self) -> int:
        """Return the bytes of all vectors that are kept."""
        looks = sum(look.nbytes for track in self._tracks.values() for _, look in track.looks)
        return looks + sum(animal.total.nbytes for animal in self._animals.values() if animal.total is not None)

    def look(self, shown: Sequence[int], looks: Mapping[int, Vector]) -> dict[int, tuple[int, int]]:
        """Take one moment, and return the shown tracks whose identity it changed: track -> before and after.

        Args:
            shown: All tracks of the moment.
            looks: Track -> how it looks, for those of them that are seen well: vectors of length 1, all of one size.
        """
        self._moment += 1
        before = dict(zip(shown, self.of(shown), strict=True))
        for number in shown:
            track = self._tracks[number]
            track.shown = self._animals[track.identity].seen = self._moment
            if number in looks:
                track.looks.append((self._moment, looks[number]))
            self._learn(track)
        self._take(self._choose(shown))
        self._forget()
        after = dict(zip(shown, self.of(shown), strict=True))
        return {number: (before[number], after[number]) for number in shown if before[number] != after[number]}

    def end(self, number: int) -> None:
        """Let go of a track; its animal may be recognised again, if it was seen well for long enough."""
        track = self._tracks.pop(number, None)
        if track is not None:
            self._drop_unsettled(track.identity)

    def forget_all(self) -> None:
        """Let go of all tracks and animals; their identities do not come back."""
        self._tracks.clear()
        self._animals.clear()

    def _track(self, number: int) -> _Track:
        if number not in self._tracks:
            self._tracks[number] = _Track(self._new(), self._moment)
        return self._tracks[number]

    def _new(self) -> int:
        identity, self._next = self._next, self._next + 1
        self._animals[identity] = _Animal(seen=self._moment)
        return identity

    def _learn(self, track: _Track) -> None:
        """Believe looks against which nothing spoke for long enough."""
        animal = self._animals[track.identity]
        while track.looks and track.looks[0][0] <= self._moment - 2 * self.rules.recent:
            animal.learn(track.looks.popleft()[1], self.rules.decay)

    def _is_settled(self, identity: int) -> bool:
        return self._animals[identity].weight >= self.rules.settled

    def _choose(self, shown: Sequence[int]) -> dict[int, int]:
        """Say which tracks look like which other animal, one to one.

        A track that is shown and whose looks say nothing keeps its identity, and no other can have it.
        """
        begin = self._moment - self.rules.recent
        recent = {
            number: looks for number in shown if len(looks := self._tracks[number].since(begin)) >= self.rules.needed
        }
        kept = {
            track.identity for number, track in self._tracks.items() if number not in recent and track.shown > begin
        }
        known = [identity for identity in self._animals if self._is_settled(identity) and identity not in kept]
        if not recent or not known:
            return {}
        own = [self._tracks[number].identity for number in recent]
        likeness = (
            _directions(np.sum(looks, 0) for looks in recent.values())
            @ _directions(self._animals[identity].total for identity in known).T
        )
        likeness += self.rules.lead * (np.array(own)[:, None] == np.array(known)[None])
        nobody = np.where(np.eye(len(own), dtype=bool), self.rules.likeness, -np.inf)  # known to look like it
        rows, columns = linear_sum_assignment(np.concatenate([likeness, nobody], 1), maximize=True)
        numbers = list(recent)
        return {
            numbers[row]: known[column]
            for row, column in zip(rows, columns, strict=True)
            if column < len(known) and known[column] != own[row]
        }

    def _take(self, chosen: Mapping[int, int]) -> None:
        """Give tracks other animals' identities; a track that loses its own to another becomes a new animal."""
        taken = set(chosen.values())
        losers = [number for number, track in self._tracks.items() if track.identity in taken and number not in chosen]
        left = {self._tracks[number].identity for number in chosen} - taken
        begin = self._moment - self.rules.recent
        for number in (*chosen, *losers):
            track = self._tracks[number]
            track.identity = chosen[number] if number in chosen else self._new()
            while track.looks and track.looks[0][0] <= begin:  # of which animal these are is unclear
                track.looks.popleft()
        for identity in left:
            self._drop_unsettled(identity)

    def _drop_unsettled(self, identity: int) -> None:
        if not self._is_settled(identity):
            del self._animals[identity]

    def _forget(self) -> None:
        """Forget the animals that no track has had for longest, where there are too many."""
        live = {track.identity for track in self._tracks.values()}
        absent = sorted(self._animals.keys() - live, key=lambda identity: self._animals[identity].seen)
        for identity in absent[: max(len(self._animals) - self.rules.animals, 0)]:
            del self._animals[identity]


def _directions(vectors: Iterable[Vector | None]) -> NDArray[np.float32]:
    """Scale vectors to length 1 and stack them."""
    stacked = np.stack([vector for vector in vectors if vector is not None])
    directions: NDArray[np.float32] = stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)
    return directions
