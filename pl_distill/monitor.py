"""The live chain: frame -> tracker -> embedder -> behaviour -> whoever keeps it (pool, record). No Lightning.

`track` and `evaluate` alike send their frames through a `Monitor`; what it sees comes out as `Observation`s, complete
and in order, a second or two late, because a behaviour is named from what comes before and after it.
"""

import logging
import math
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.clip import Image
from pl_distill.models.behaviour_head import BehaviourModel, require_embedder
from pl_distill.models.behaviour_stream import BehaviourStream, NamedBehaviours
from pl_distill.models.embedder import Embedder
from pl_distill.streaming.tracked import FrameAnimals

log = logging.getLogger(__name__)

DEFAULT_FPS = 6.0


@dataclass(frozen=True, eq=False)
class Observation:
    """One animal at one moment, with everything that the chain says about it.

    Args:
        number: The tracker's number of the animal.
        frame: Number of the video frame.
        time_s: Of the frame, as it was given.
        box_xyxy: Pixels, (4,).
        frame_size: Height and width of the frame in pixels.
        score: How sure the tracker is, 0-1.
        embedding: Of length 1, (D,), float32.
        crop: What the embedder saw, uint8, (3, S, S).
        behaviour: Its class, None without a behaviour head.
        probability: Of the behaviour, 0-1.
        is_renamed: Whether the number was another track's when it was observed last: it has not walked here.
    """

    number: int
    frame: int
    time_s: float
    box_xyxy: NDArray[np.float32]
    frame_size: tuple[int, int]
    score: float
    embedding: NDArray[np.float32]
    crop: Tensor
    behaviour: str | None = None
    probability: float = 0.0
    is_renamed: bool = False


class Sink(Protocol):
    """Keeps observations: a pool, a record, a file."""

    def observe(self, observations: Sequence[Observation]) -> None:
        """Take the animals of one frame."""

    def close(self) -> None:
        """Nothing more comes."""


class Monitor:
    """Describes what a tracker follows, and hands it on.

    Args:
        embedder: Describes animals.
        behaviour: Names what they do; None names nothing.
        sinks: Get every observation.
        fps: Observations per second; frames between them are not described. None takes the behaviour head's rate.

    Raises:
        ConfigError: The head was trained on another embedder.
    """

    def __init__(
        self,
        embedder: Embedder,
        behaviour: BehaviourModel | None = None,
        sinks: Sequence[Sink] = (),
        fps: float | None = None,
    ) -> None:
        if behaviour is not None:
            require_embedder(behaviour, embedder.identity)
        self.embedder = embedder
        self.sinks = tuple(sinks)
        self._stream = None if behaviour is None else BehaviourStream(behaviour)
        self._fps = fps if fps is not None else DEFAULT_FPS if behaviour is None else behaviour.fps
        self._started_s: float | None = None
        self._tick = -1
        self._steps: deque[int] = deque(maxlen=0 if behaviour is None else behaviour.window.length)
        self._is_slow = False
        self._renamed: set[int] = set()  # since they were observed last
        self._waiting: dict[tuple[int, int], Observation] = {}

    def update(self, frame_rgb: Image, tracks: FrameAnimals, frame: int, time_s: float) -> list[Observation]:
        """Take the next frame and what was tracked in it; give the observations that are complete by now.

        Args:
            frame_rgb: Picture (H, W, 3), uint8.
            tracks: Its animals, by a tracker or by the truth.
            frame: Number of the video frame, rising.
            time_s: When it was taken, in seconds from any origin, rising.
        """
        if self._started_s is None:
            self._started_s = time_s
        self._renamed |= tracks.renamed
        # The first frame that comes no earlier than a quarter before its time: of a clip whose rate is a multiple of
        # ours these are every so many-th frames from the first on, the labelled ones of the Edinburgh clips.
        tick = math.floor((time_s - self._started_s) * self._fps + 0.25)
        if tick <= self._tick:
            return []
        if self._tick >= 0:
            self._judge_pace(tick - self._tick)
        self._tick = tick
        seen = self.embedder.describe_animals(frame_rgb, tracks.boxes_xyxy, tracks.masks)
        embeddings = seen.embeddings.cpu().numpy()
        ids = tuple(tracks.ids[row] for row in seen.rows)
        renamed = self._renamed.intersection(ids)
        self._renamed -= renamed
        size = (frame_rgb.shape[0], frame_rgb.shape[1])
        found = [
            Observation(
                number,
                frame,
                time_s,
                tracks.boxes_xyxy[row],
                size,
                float(tracks.scores[row]),
                embeddings[place],
                seen.crops[place],
                is_renamed=number in renamed,
            )
            for place, (number, row) in enumerate(zip(ids, seen.rows, strict=True))
        ]
        if self._stream is None:
            return self._hand_on(found)
        self._waiting.update({(tick, one.number): one for one in found})
        named = self._stream.push(tick, ids, tracks.boxes_xyxy[seen.rows], seen.lies, seen.features, size, renamed)
        return [done for one in named for done in self._hand_on(self._complete(one))]

    def close(self) -> list[Observation]:
        """Give what still waits for its behaviour, and tell the sinks that nothing more comes: each, whatever fails."""
        with ExitStack() as stack:
            for sink in reversed(self.sinks):
                stack.callback(sink.close)
            named = [] if self._stream is None else self._stream.flush()
            return [one for behaviours in named for one in self._hand_on(self._complete(behaviours))]

    def _judge_pace(self, step: int) -> None:
        """Warn once where windows are half empty for want of frames; one pause, as when a camera drops out, is none."""
        self._steps.append(step)
        if self._is_slow or self._stream is None or len(self._steps) < self._stream.model.window.length:
            return
        typical = median(self._steps)
        if typical > 2:
            self._is_slow = True
            log.warning(
                "about %.1f observations a second come, but behaviours were learnt at %g: less than half of each "
                "window is there, and the names may be wrong. Take a faster camera or device, or a head of that rate",
                self._fps / typical, self._fps,
            )  # fmt: skip

    def _complete(self, named: NamedBehaviours) -> list[Observation]:
        rows = zip(named.ids, named.behaviours, named.probabilities, strict=True)
        return [
            replace(self._waiting.pop((named.tick, number)), behaviour=behaviour, probability=float(probability))
            for number, behaviour, probability in rows
        ]

    def _hand_on(self, observations: list[Observation]) -> list[Observation]:
        if observations:
            for sink in self.sinks:
                sink.observe(observations)
        return observations
