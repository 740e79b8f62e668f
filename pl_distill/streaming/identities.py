"""Which animal a track follows, told by its looks: tracks that changed places get their identities back.

SAM 3 knows an animal by its memories, and the detection that puts a track right writes itself into them: where animals
cross or lie on each other, their tracks may go on with each other's animal, and stay there. Here every animal has a
mean of how it looked while no other was near; a track that looks like another animal for a while takes its identity.
In the field: re-identification within a sequence, one to one, as the appearance term of DeepSORT (Wojke et al., arXiv
1703.07402), but behind the tracker instead of in its association.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

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
class _Look:
    """How a track looked in a moment, and whether it was found to be its own animal in a moment soon after."""

    moment: int
    vector: Vector
    is_own: bool = False


@dataclass
class _Track:
    """Whom a track follows, when it was shown last, and its looks of late, which its animal has not learned."""

    identity: int
    shown: int
    looks: deque[_Look] = field(default_factory=deque)

    def since(self, moment: int) -> list[_Look]:
        return [look for look in self.looks if look.moment > moment]


class Change(NamedTuple):
    """A track that goes on under another identity.

    Args:
        before: What it was called.
        after: What it is called from now on.
        is_known: Whether that is an animal that it looks like; otherwise a new one, since another track looks like
            `before`.
    """

    before: int
    after: int
    is_known: bool


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
        looks = sum(look.vector.nbytes for track in self._tracks.values() for look in track.looks)
        return looks + sum(animal.total.nbytes for animal in self._animals.values() if animal.total is not None)

    def look(self, shown: Sequence[int], looks: Mapping[int, Vector]) -> list[Change]:
        """Take one moment, and say which tracks are called otherwise from now on; some of them may not be shown.

        Args:
            shown: All tracks of the moment.
            looks: Track -> how it looks, for those of them that are seen well: vectors of length 1, all of one size.
        """
        self._moment += 1
        self.of(shown)
        for number in shown:
            track = self._tracks[number]
            track.shown = self._animals[track.identity].seen = self._moment
            if number in looks:
                track.looks.append(_Look(self._moment, looks[number]))
            self._learn(track)
        changes = self._take(self._choose(shown))
        self._forget()
        return changes

    def keep(self, live: Collection[int]) -> None:
        """Let go of all other tracks; an animal may be recognised again, if it was seen well for long enough."""
        for number in self._tracks.keys() - set(live):
            self._drop_unsettled(self._tracks.pop(number).identity)

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
        """Let its animal learn looks that were found to be its own, and against which nothing spoke since."""
        animal = self._animals[track.identity]
        while track.looks and track.looks[0].moment <= self._moment - 2 * self.rules.recent:
            look = track.looks.popleft()
            if look.is_own:
                animal.learn(look.vector, self.rules.decay)

    def _is_settled(self, identity: int) -> bool:
        return self._animals[identity].weight >= self.rules.settled

    def _choose(self, shown: Sequence[int]) -> dict[int, int]:
        """Say which tracks look like which other animal, one to one, and note those that look like their own.

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
        numbers, own = list(recent), [self._tracks[number].identity for number in recent]
        chosen = self._match(recent.values(), own, known) if recent and known else [None] * len(own)
        for number, identity, found in zip(numbers, own, chosen, strict=True):
            if found == identity or (found is None and identity not in known):  # nobody speaks against a young animal
                for look in recent[number]:
                    look.is_own = True
        return {
            number: found
            for number, identity, found in zip(numbers, own, chosen, strict=True)
            if found is not None and found != identity
        }

    def _match(self, recent: Iterable[Sequence[_Look]], own: Sequence[int], known: Sequence[int]) -> list[int | None]:
        """Give for each track the known animal that it looks like, None if it looks like nobody who is free."""
        likeness = (
            _directions(np.sum([look.vector for look in looks], 0) for looks in recent)
            @ _directions(self._animals[identity].total for identity in known).T
        )
        is_own = np.array(own)[:, None] == np.array(known)[None]
        nobody = np.where(np.eye(len(own), dtype=bool), self.rules.likeness, -np.inf)
        rows, columns = linear_sum_assignment(
            np.concatenate([likeness + self.rules.lead * is_own, nobody], 1), maximize=True
        )
        free = set(range(len(known))) - set(columns)
        found: list[int | None] = []
        for row, column in zip(rows, columns, strict=True):  # rows come in order
            others = max((float(likeness[row, one]) for one in free), default=-1.0)
            is_sure = is_own[row].any() or (
                column < len(known) and float(likeness[row, column]) - others >= self.rules.lead
            )
            found.append(known[column] if column < len(known) and is_sure else None)
        return found

    def _take(self, chosen: Mapping[int, int]) -> list[Change]:
        """Give tracks other animals' identities; a track that loses its own to another becomes a new animal."""
        taken = set(chosen.values())
        losers = [number for number, track in self._tracks.items() if track.identity in taken and number not in chosen]
        left = {self._tracks[number].identity for number in chosen} - taken
        begin = self._moment - self.rules.recent
        changes = []
        for number in (*chosen, *losers):
            track = self._tracks[number]
            before, track.identity = track.identity, chosen[number] if number in chosen else self._new()
            changes.append(Change(before, track.identity, number in chosen))
            track.looks = deque(track.since(begin))  # whose the older ones are is unclear
        for identity in left:
            self._drop_unsettled(identity)
        return changes

    def _drop_unsettled(self, identity: int) -> None:
        if not self._is_settled(identity):
            del self._animals[identity]

    def _forget(self) -> None:
        """Forget the animals that no track has had for longest, where there are too many."""
        live = {track.identity for track in self._tracks.values()}
        absent = sorted(self._animals.keys() - live, key=lambda identity: self._animals[identity].seen)
        for identity in absent[: max(len(absent) - self.rules.animals, 0)]:
            del self._animals[identity]


def _directions(vectors: Iterable[Vector | None]) -> NDArray[np.float32]:
    """Scale vectors to length 1 and stack them."""
    stacked = np.stack([vector for vector in vectors if vector is not None])
    directions: NDArray[np.float32] = stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)
    return directions
