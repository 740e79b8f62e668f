"""What is said about the animals of one frame, whoever says it: a tracker, a file of tracks, the truth."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Boxes(Protocol):
    """Boxes with identities: N animals."""

    @property
    def ids(self) -> tuple[int, ...]:
        """One identity per animal, kept from frame to frame."""

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """Shape (N, 4), pixels of the frame."""

    @property
    def scores(self) -> NDArray[np.float32]:
        """Shape (N,), confidence 0-1."""


class FrameAnimals(Boxes, Protocol):
    """The same, with masks where somebody has drawn them."""

    @property
    def masks(self) -> NDArray[np.bool_] | None:
        """Shape (N, H, W); None where there are boxes only."""

    @property
    def renamed(self) -> frozenset[int]:
        """Those of the ids that were another track's until now: they have not walked here."""


class TrackedFrame(FrameAnimals, Protocol):
    """What a tracker gives: always with masks."""

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Shape (N, H, W)."""
