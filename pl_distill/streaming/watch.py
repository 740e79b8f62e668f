"""Notice what a camera does wrong: pauses, blank pictures, another size. Each is logged once, and survived."""

import logging
import statistics
from collections import deque

import numpy as np

from datamodules.clip import Image

GAP_S = 2.0  # a shorter pause is none
GAP_INTERVALS = 3.0  # nor is one of fewer intervals: a picture every five seconds is a slow camera, not a broken one
BLANK_STD = 2.0  # of 255; a lost signal is one colour, give or take compression
_STEP = 8  # every eighth pixel of every eighth row is enough to see it

logger = logging.getLogger(__name__)


class CameraWatch:
    """Looks at every frame before the tracker does."""

    def __init__(self) -> None:
        self._size: tuple[int, ...] | None = None
        self._last_s: float | None = None
        self._intervals_s = deque[float](maxlen=15)
        self._blank = 0

    def look(self, frame: Image, timestamp_s: float) -> bool:
        """Log what is odd about the next frame, and return whether it shows anything.

        Args:
            frame: RGB, shape (H, W, 3), uint8.
            timestamp_s: When it was taken.
        """
        if self._last_s is not None:
            interval_s = timestamp_s - self._last_s
            usual_s = statistics.median(self._intervals_s) if self._intervals_s else 0.0
            if not 0 <= interval_s <= max(GAP_S, GAP_INTERVALS * usual_s):
                kind = "no frames for" if interval_s > 0 else "the clock went back by"
                logger.warning("at %.3f s: %s %.3f s", timestamp_s, kind, abs(interval_s))
            self._intervals_s.append(max(interval_s, 0.0))
        self._last_s = timestamp_s
        height, width = size = frame.shape[:2]
        if self._size is not None and size != self._size:
            logger.warning(
                "at %.3f s: frames are now %d x %d, not %d x %d", timestamp_s, width, height, *self._size[::-1]
            )
        self._size = size
        return self._shows_something(frame, timestamp_s)

    def _shows_something(self, frame: Image, timestamp_s: float) -> bool:
        sample = frame[::_STEP, ::_STEP].reshape(-1, 3)
        if np.std(sample, axis=0).max() < BLANK_STD:
            if self._blank == 0:
                logger.warning("at %.3f s: the picture is blank", timestamp_s)
            self._blank += 1
            return False
        if self._blank:
            logger.warning("at %.3f s: the picture is back after %d blank frames", timestamp_s, self._blank)
            self._blank = 0
        return True
