"""Stream a clip through a tracker, frame by frame and in order, and time it.

Nothing looks ahead and nothing is kept: what a camera would give is what the tracker gets. The tracker is whatever has
`update` and `reset`: `pl_distill.streaming.StreamingTracker`, or a baseline.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from datamodules.clip import Clip, Frame, Image
from pl_distill.evaluation.memory import rss_bytes
from pl_distill.streaming.tracked import TrackedFrame


class Tracker(Protocol):
    """Takes the frames of one clip after the other."""

    def update(self, frame: Image, timestamp_s: float, /) -> TrackedFrame:
        """Take the next frame, RGB (H, W, 3), and give the animals in it."""

    def reset(self) -> None:
        """Forget everything: another clip begins."""

    def session_bytes(self) -> int:
        """Bytes of what is kept from frame to frame, without the network."""


@dataclass(frozen=True, eq=False)
class ReplayedFrame:
    """One frame of a replay.

    Args:
        frame: The picture with its truth.
        tracks: What the tracker made of it.
        seconds: Time spent in the tracker's `update`; decoding is not in it.
        rss_bytes: Resident set of the process after the update; None where the system does not tell.
        session_bytes: Of what the tracker keeps for the next frames.
    """

    frame: Frame
    tracks: TrackedFrame
    seconds: float
    rss_bytes: int | None
    session_bytes: int


def replay(clip: Clip, tracker: Tracker, max_frames: int | None = None) -> Iterator[ReplayedFrame]:
    """Reset the tracker and give it the frames of a clip, the first `max_frames` or all."""
    tracker.reset()
    for frame in islice(clip.frames(), max_frames):
        started = time.perf_counter()
        tracks = tracker.update(frame.image, frame.timestamp_s)
        seconds = time.perf_counter() - started
        yield ReplayedFrame(frame, tracks, seconds, rss_bytes(), tracker.session_bytes())


def length(clip: Clip, max_frames: int | None = None) -> int:
    """Return how many frames `replay` gives."""
    return clip.num_frames if max_frames is None else min(clip.num_frames, max_frames)
