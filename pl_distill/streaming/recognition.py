"""Look at a stream's animals by an embedder, and give its tracks the identities that their looks say."""

import logging
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from datamodules.clip import Image
from pl_distill.models.embedder import Embedder
from pl_distill.streaming.identities import Identities
from pl_distill.streaming.policy import Appearance
from pl_distill.streaming.postprocess import Tracks

logger = logging.getLogger(__name__)


class Recognition:
    """The looks of one stream's animals.

    Args:
        embedder: Describes animals; on whatever device it is.
        rules: When to look, and when a track takes another animal's identity.
    """

    def __init__(self, embedder: Embedder, rules: Appearance) -> None:
        self.embedder = embedder
        self.rules = rules
        self.identities = Identities(rules)
        self._began_s: float | None = None
        self._last_s = 0.0
        self._tick = -1

    def identify(self, frame: Image, tracks: Tracks, timestamp_s: float, number: int) -> Tracks:
        """Give the shown tracks of the next frame their animals' identities.

        Args:
            frame: RGB, shape (H, W, 3), uint8.
            tracks: With the numbers that the tracker gave them.
            timestamp_s: When it was taken, in seconds from any origin.
            number: Of the frame, for the log.
        """
        renamed: frozenset[int] = frozenset()
        if self._is_time(timestamp_s):
            alone = _alone(tracks, self.rules.overlap)
            seen = self.embedder.describe_animals(frame, tracks.boxes_xyxy[alone], tracks.masks[alone])
            looked_at = [tracks.ids[row] for row in alone[seen.rows]]
            looks = dict(zip(looked_at, seen.embeddings.cpu().numpy(), strict=True))
            changes = self.identities.look(tracks.ids, looks)
            renamed = frozenset(change.after for change in changes if change.is_known)
            for change in changes:
                why = "which it looks like" if change.is_known else "another track looks like its animal"
                logger.info("frame %d: track %d goes on as %d, %s", number, change.before, change.after, why)
        ids = np.array(self.identities.of(tracks.ids), np.int64)
        order = ids.argsort()
        called = tuple(int(identity) for identity in ids[order])
        if (np.diff(order) == 1).all():  # as in most frames: no copy of all masks
            return replace(tracks, ids=called, renamed=renamed)
        return replace(
            tracks,
            ids=called,
            boxes_xyxy=tracks.boxes_xyxy[order],
            scores=tracks.scores[order],
            masks=tracks.masks[order],
            renamed=renamed,
        )

    def _is_time(self, timestamp_s: float) -> bool:
        if self._began_s is None or timestamp_s < self._last_s:  # a clock that went back begins anew
            self._began_s, self._tick = timestamp_s, -1
        self._last_s = timestamp_s
        tick = round((timestamp_s - self._began_s) * self.rules.fps)
        is_new, self._tick = tick > self._tick, max(tick, self._tick)
        return is_new


def _alone(tracks: Tracks, overlap: float) -> NDArray[np.intp]:
    """Return the rows of those tracks whose box overlaps (IoU) no other's by as much as `overlap`."""
    boxes = torch.from_numpy(tracks.boxes_xyxy)
    others = box_iou(boxes, boxes).fill_diagonal_(0)
    return np.flatnonzero((others < overlap).all(1).numpy())
