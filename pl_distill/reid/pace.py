"""Does a camera, or the device behind it, give frames often enough for the record to count anything?"""

import logging
from collections import deque
from statistics import median_low

log = logging.getLogger(__name__)

_JUDGED = 20
"""So many steps between frames are looked at together: one pause, or a pen that is empty for a while, is not slow."""


class PaceWatch:
    """Warns once where most steps between frames are so long that nothing of them is counted.

    Args:
        camera: Its name, for the warning.
        max_gap_s: The longest step that is counted, see `PenMap`.
    """

    def __init__(self, camera: str, max_gap_s: float) -> None:
        self._camera, self._max_gap_s = camera, max_gap_s
        self._last_s: float | None = None
        self._steps_s: deque[float] = deque(maxlen=_JUDGED)
        self._has_warned = False

    def observe(self, time_s: float) -> None:
        """Take the time of a frame, in seconds, rising."""
        if self._last_s is not None:
            self._steps_s.append(time_s - self._last_s)
        self._last_s = time_s
        if self._has_warned or len(self._steps_s) < _JUDGED:
            return
        typical = median_low(self._steps_s)
        if typical > self._max_gap_s:
            self._has_warned = True
            log.warning(
                "camera '%s': observations come about %.1f s apart, and the record counts nothing of steps above %g s: "
                "its seconds and metres will be 0. Raise --place.max_gap_s (of `record build` --map.max_gap_s), or "
                "take a faster camera or device",
                self._camera, typical, self._max_gap_s,
            )  # fmt: skip
