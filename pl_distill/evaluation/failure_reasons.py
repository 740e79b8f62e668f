"""Why a tracker may have gone wrong at a moment: what the truth says about the animal and its neighbours then.

A reason is a circumstance, not a proof: it is read from boxes, behaviours and visibility in the second before an error
begins. The first class that applies is taken, from the rarest circumstance to the commonest.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.clip import Annotation, Clip

Reason = Literal[
    "entering", "border", "lying pile", "occlusion", "crossing", "outline", "double", "background", "none of these"
]

REASONS: dict[str, str] = {
    "entering": "the animal had been in sight for less than two seconds, or the clip had just begun",
    "border": "its box touches the edge of the picture",
    "lying pile": "it lies against another animal that lies",
    "occlusion": "it was hidden, or another animal's box covers at least half of its own",
    "crossing": "its box and another's overlap, and one of the two is on its feet",
    "outline": "away from all others; a track is there, but its box overlaps too little to count (of a false track: it "
    "shares at least 10 % of the smaller box with an animal that has no track)",
    "double": "a false track that shares at least 10 % of the smaller box with an animal that has a track: a second "
    "one on it, or a speck at its edge",
    "background": "a false track that shares less than 10 % of the smaller box with any animal",
    "none of these": "the truth shows nothing that explains it",
}
"""Every class with its rule, in the order in which they are tried."""

LOOK_BACK_S = 1.0
"""How long before an error its circumstances are looked at."""

ENTERING_S = 2.0
EDGE = 0.005
"""A box this near to an edge touches it; as a part of the picture's side."""

CONTACT = 0.1
"""Two boxes that share so much of the smaller one overlap; false tracks, too, are laid to an animal by it."""

COVERED = 0.5
STILL = 0.15
"""An animal without a label lies if its centre moves by less within `LOOK_BACK_S`; as a part of its box's diagonal."""

LYING = ("lying", "sleep")


class Scene:
    """The truth of one clip, asked about moments.

    Args:
        clip: With its annotations; hidden animals count as neighbours, too.
    """

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._first_seen: dict[str, int] = {}
        for index in sorted(clip.annotations):
            animals = clip.annotations[index]
            for name, visible in zip(animals.identities, animals.visible, strict=True):
                if visible:
                    self._first_seen.setdefault(name, index)

    def box(self, animal: str, frame: int) -> NDArray[np.float32] | None:
        """Return the box of an animal (4,) in a labelled frame; None where it has none."""
        animals = self._clip.annotations.get(frame)
        if animals is None or animal not in animals.identities:
            return None
        box: NDArray[np.float32] = animals.boxes_xyxy[animals.identities.index(animal)]
        return box

    def covered_most(self, box: NDArray[np.floating], frame: int) -> str | None:
        """Return the animal with which a box shares most of the smaller of the two; None below `CONTACT`."""
        animals = self._clip.annotations.get(frame)
        if animals is None or not len(animals):
            return None
        shares = [_shared(box, other) for other in animals.boxes_xyxy]
        best = int(np.argmax(shares))
        return animals.identities[best] if shares[best] >= CONTACT else None

    def circumstance(self, animal: str, first: int) -> Reason | None:
        """Return what was special about an animal when an error began in frame `first`; None if nothing."""
        seen = self._first_seen.get(animal)
        if seen is not None and (first - seen) / self._clip.fps < ENTERING_S:
            return "entering"
        box = self.box(animal, first)
        if box is not None and self._touches_edge(box):
            return "border"
        for reason, holds in (("lying pile", self._piled), ("occlusion", self._occluded), ("crossing", self._touches)):
            if any(holds(animal, frame) for frame in self._window(first)):
                return reason  # type: ignore[return-value]  # the three are of the type
        return None

    def _window(self, first: int) -> Iterable[int]:
        begin = first - round(LOOK_BACK_S * self._clip.fps)
        return [frame for frame in range(max(begin, 0), first + 1) if frame in self._clip.annotations]

    def _touches_edge(self, box: NDArray[np.floating]) -> bool:
        width, height = self._clip.width, self._clip.height
        near = (box[0] / width, box[1] / height, 1 - box[2] / width, 1 - box[3] / height)
        return bool(min(near) <= EDGE)

    def _neighbours(self, animal: str, frame: int) -> tuple[NDArray[np.float32] | None, list[int], Annotation]:
        """Return the animal's box, and the rows of those in contact with it."""
        animals, box = self._clip.annotations[frame], self.box(animal, frame)
        if box is None:
            return None, [], animals
        others = [row for row, name in enumerate(animals.identities) if name != animal]
        return box, [row for row in others if _shared(box, animals.boxes_xyxy[row]) >= CONTACT], animals

    def _piled(self, animal: str, frame: int) -> bool:
        _, rows, animals = self._neighbours(animal, frame)
        return bool(rows) and self._lies(animal, frame) and any(self._lies(animals.identities[r], frame) for r in rows)

    def _occluded(self, animal: str, frame: int) -> bool:
        box, rows, animals = self._neighbours(animal, frame)
        if box is None:
            return False
        if not animals.visible[animals.identities.index(animal)]:
            return True
        return any(_intersection(box, animals.boxes_xyxy[row]) >= COVERED * _area(box) for row in rows)

    def _touches(self, animal: str, frame: int) -> bool:
        return bool(self._neighbours(animal, frame)[1])

    def _lies(self, animal: str, frame: int) -> bool:
        animals = self._clip.annotations[frame]
        behaviour = animals.behaviours[animals.identities.index(animal)]
        if behaviour is not None:
            return behaviour in LYING
        boxes = [box for other in self._window(frame) if (box := self.box(animal, other)) is not None]
        before, now = boxes[0], boxes[-1]
        moved = np.hypot(*(now[:2] + now[2:] - before[:2] - before[2:]) / 2)
        return len(boxes) > 1 and bool(moved < STILL * np.hypot(*(now[2:] - now[:2])))


def _area(box: NDArray[np.floating]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _intersection(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(sides.clip(min=0).prod())


def _shared(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return the intersection of two boxes as a part of the smaller one."""
    smaller = min(_area(one), _area(other))
    return _intersection(one, other) / smaller if smaller > 0 else 0.0
