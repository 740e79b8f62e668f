"""Whether the frames of a video come evenly, so that a frame's number tells its time.

Phones, and recorders whose disk or network was busy, store frames when they come. A clip counts them: frame number over
rate. Labels made by time lie on other frames then, and speeds are wrong.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from datamodules.errors import AnnotationError

_AWAY_S, _AWAY_FRAMES = 0.2, 2.0
"""Uneven is what is further from its place than both: an animal hardly moves meanwhile, and clocks are rounded."""
_PAUSE = 1.5  # of the usual distance between two frames; a frame that was left out makes a pause of 2


@dataclass(frozen=True)
class Pace:
    """How the frames of a video come.

    Args:
        even: Whether each is shown about when its number over the video's rate says.
        away_s: How far one is from there, at most, in seconds.
        pauses: How often the next frame came late.
        longest_s: The longest of these pauses, in seconds; 0 without any.
        usual_fps: Frames per second between the pauses.
    """

    even: bool
    away_s: float
    pauses: int
    longest_s: float
    usual_fps: float

    def __str__(self) -> str:
        pauses = f"{self.pauses} pause{'' if self.pauses == 1 else 's'}"
        longest = f", the longest of {self.longest_s:.1f} s" if self.pauses else ""
        return f"{pauses}{longest}, and a frame is up to {self.away_s:.1f} s from where its number puts it"

    def check(self, labels: Path) -> None:
        """Refuse labels, which count frames, of a video whose frames come unevenly.

        Raises:
            AnnotationError: It is not even.
        """
        if not self.even:
            raise AnnotationError(
                labels,
                f"labels a video whose frames come unevenly: {self}",
                "frames at an even rate, by which labels are counted",
                f"Fill the pauses and take the new video: ffmpeg -i color.mp4 -fps_mode cfr -r {self.usual_fps:.4g} "
                "even.mp4.",
            )


def pace_of(times_s: ArrayLike, fps: float) -> Pace:
    """Compare the times at which frames are shown with an even rate.

    Args:
        times_s: Of every frame, in seconds, in any order, at least one.
        fps: By which the clip counts.
    """
    times = np.sort(np.asarray(times_s, np.float64))
    gaps = np.diff(times)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    pauses = gaps[gaps > _PAUSE * usual]
    away = float(np.abs(times - times[0] - np.arange(len(times)) / fps).max())
    return Pace(
        even=away <= max(_AWAY_S, _AWAY_FRAMES / fps),
        away_s=away,
        pauses=len(pauses),
        longest_s=float(pauses.max()) if len(pauses) else 0.0,
        usual_fps=1 / float(gaps[gaps <= _PAUSE * usual].mean()) if usual > 0 else fps,  # clocks round single gaps
    )
