"""Name behaviours as frames come: the same windows as in training, a little late.

A window needs what follows its moment, and so does the movement at its end: an answer is late by `lag` observations.
"""

from collections import deque
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.behaviour_windows import window_rows
from datamodules.lies import LIE
from datamodules.motion import REACH, motion_of
from pl_distill.models.behaviour_head import BehaviourModel


class NamedBehaviours(NamedTuple):
    """What the animals of one observed frame were doing; N of them.

    Args:
        tick: Number of the observation.
        ids: Of the tracks, rising.
        behaviours: Name of each one's most probable class.
        probabilities: Of that class, 0-1, (N,).
    """

    tick: int
    ids: tuple[int, ...]
    behaviours: tuple[str, ...]
    probabilities: NDArray[np.float32]


class _Seen(NamedTuple):
    tick: int
    ids: tuple[int, ...]
    pieces: NDArray[np.int64]  # of each animal's course, (N,): another one where it jumped, was renamed or resized
    boxes_xyxy: NDArray[np.float32]
    lies: NDArray[np.float32]
    features: Tensor  # (N, F)
    width: int
    height: int


class _Course(NamedTuple):
    """Where an animal was last seen, and on which piece of its course."""

    piece: int
    tick: int
    middle: NDArray[np.floating]


JUMP = 1.0
"""Body lengths between two observations, above which a number has gone over to another animal."""


class BehaviourStream:
    """Takes the animals of frame after frame, and names what they did `lag` observations ago.

    Args:
        model: The head, on the device where it shall run; features may come from another.
    """

    def __init__(self, model: BehaviourModel) -> None:
        self.model = model
        self.lag = model.window.future + REACH
        self._keep = model.window.past + REACH
        self._seen: deque[_Seen] = deque()
        self._courses: dict[int, _Course] = {}
        self._pieces = 0
        self._frame_size: tuple[int, int] | None = None
        self._done = -1  # the last tick that was named

    def push(
        self,
        tick: int,
        ids: tuple[int, ...],
        boxes_xyxy: NDArray[np.float32],
        lies: NDArray[np.float32],
        features: Tensor,
        frame_size: tuple[int, int],
        renamed: Collection[int] = (),
    ) -> list[NamedBehaviours]:
        """Take one observation and name those that are old enough.

        Args:
            tick: Its number, rising; a number that is left out is a moment that nobody saw.
            ids: Of the tracks, (N,).
            boxes_xyxy: Shape (N, 4), pixels.
            lies: Shape (N, len(LIE)): see `datamodules.lies`.
            features: What the embedder gave, (N, F).
            frame_size: Height and width of the frame. Where it changes, the past is of other pixels: every animal
                begins another course.
            renamed: Those of the ids that were another track's until now, whose past is not this animal's here.
        """
        if self._seen and tick <= self._seen[-1].tick:
            raise ValueError(f"tick {tick} follows {self._seen[-1].tick}")
        height, width = frame_size
        if frame_size != self._frame_size:
            self._courses.clear()
            self._frame_size = frame_size
        for one in renamed:
            self._courses.pop(one, None)
        pieces = np.array([self._piece(tick, *one) for one in zip(ids, boxes_xyxy, strict=True)], np.int64)
        self._seen.append(_Seen(tick, ids, pieces, boxes_xyxy, lies, features, width, height))
        named = list(self._name(tick - self.lag))
        while self._seen[0].tick < self._done - self._keep:
            self._seen.popleft()
        for gone in [one for one, course in self._courses.items() if tick - course.tick > self._keep + self.lag]:
            del self._courses[gone]
        return named

    def _piece(self, tick: int, animal: int, box_xyxy: NDArray[np.float32]) -> int:
        """Say to which piece of its course an animal's box belongs: a jump is no movement, and begins another one."""
        middle, body = (box_xyxy[:2] + box_xyxy[2:]) / 2, float((box_xyxy[2:] - box_xyxy[:2]).max())
        before = self._courses.get(animal)
        if before is None or np.hypot(*(middle - before.middle)) > JUMP * body * (tick - before.tick):
            self._pieces += 1
            piece = self._pieces
        else:
            piece = before.piece
        self._courses[animal] = _Course(piece, tick, middle)
        return piece

    def flush(self) -> list[NamedBehaviours]:
        """Name what is left, by what has been seen; the stream can go on with later ticks."""
        named = list(self._name(self._seen[-1].tick)) if self._seen else []
        self._seen.clear()
        return named

    def _name(self, last: int) -> Iterator[NamedBehaviours]:
        for seen in [one for one in self._seen if self._done < one.tick <= last]:
            self._done = seen.tick
            yield self._name_one(seen)

    def _name_one(self, moment: _Seen) -> NamedBehaviours:
        if not moment.ids:
            return NamedBehaviours(moment.tick, (), (), np.zeros(0, np.float32))
        window = self.model.window
        first, last = moment.tick - window.past - REACH, moment.tick + window.future + REACH
        around = [one for one in self._seen if first <= one.tick <= last]
        pieces = np.concatenate([one.pieces for one in around])
        ticks = np.concatenate([np.full(len(one.pieces), one.tick) for one in around])
        boxes = np.concatenate([one.boxes_xyxy.reshape(-1, 4) for one in around])
        lies = np.concatenate([one.lies.reshape(-1, len(LIE)) for one in around])
        order = np.lexsort((ticks, pieces))
        frame = (ticks[order] - first).astype(np.int32)
        _, animal = np.unique(pieces[order], return_inverse=True)
        motion = motion_of(
            frame,
            animal.astype(np.int32),
            boxes[order],
            lies[order],
            fps=self.model.fps,
            width=moment.width,
            height=moment.height,
        )
        called = dict(zip(moment.pieces.tolist(), moment.ids, strict=True))
        now = np.array(sorted(np.flatnonzero(ticks[order] == moment.tick), key=lambda row: called[pieces[order][row]]))
        rows = window_rows(frame, animal.astype(np.int32), window, 1)[now]
        present = rows >= 0
        device = next(self.model.head.parameters()).device
        features = torch.cat([one.features.to(device) for one in around])[torch.from_numpy(order).to(device)]
        keep = torch.from_numpy(present).to(device)
        with torch.inference_mode():
            logits = self.model.head(
                torch.where(keep[..., None], features[torch.from_numpy(rows).to(device)].float(), 0.0),
                torch.from_numpy(np.where(present[..., None], motion[rows], 0)).to(device),
                keep,
            )
            probabilities, classes = logits.float().softmax(1).max(1)
        return NamedBehaviours(
            moment.tick,
            tuple(called[piece] for piece in pieces[order][now].tolist()),
            tuple(self.model.classes[number] for number in classes.tolist()),
            probabilities.cpu().numpy(),
        )
