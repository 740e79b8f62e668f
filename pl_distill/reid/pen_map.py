"""Where things are in a camera's picture, and how large a metre is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pl_distill.errors import ConfigError

PLACES = ("feeder", "drinker")
"""What an animal can visit."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PenMap:
    """A camera's view of its pen.

    Args:
        pixels_per_m: Pixels of a metre on the floor.
        feeder_xyxy: Box around the feeder in pixels; None: there is none in the picture, and nothing is known of
            visits to it.
        drinkers_xyxy: Boxes around the drinkers; the same of none.
        reach_m: Distance between centres within which another animal is a neighbour.
        step_m: Movements of the centre below this are jitter.
        visit_gap_s: A visit goes on over a pause of this length, or of `max_gap_s` where that is longer.
        max_gap_s: After a longer time unseen, the time between is not counted.
        max_speed_m_s: Faster than this no animal runs: what looks like it is a track that changed its animal, no way.
    """

    pixels_per_m: float = 100.0
    feeder_xyxy: Box | None = None
    drinkers_xyxy: tuple[Box, ...] = ()
    reach_m: float = 1.0
    step_m: float = 0.15
    visit_gap_s: float = 10.0
    max_gap_s: float = 2.0
    max_speed_m_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.max_speed_m_s > 0:
            raise ConfigError("max_speed_m_s", f"is {self.max_speed_m_s}", "above 0", "Correct it.")
        if not self.pixels_per_m > 0:
            raise ConfigError("pixels_per_m", f"is {self.pixels_per_m}", "above 0", "Measure the pen's length.")
        if not self.max_gap_s > 0:
            raise ConfigError("max_gap_s", f"is {self.max_gap_s}", "above 0", "Correct it: nothing would count.")
        for name in ("reach_m", "step_m", "visit_gap_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}", f"is {getattr(self, name)}", "0 or more", "Correct it.")
        named = {"feeder_xyxy": self.feeder_xyxy} if self.feeder_xyxy else {}
        named |= {f"drinkers_xyxy[{number}]": box for number, box in enumerate(self.drinkers_xyxy)}
        for name, (left, top, right, bottom) in named.items():
            if not (left < right and top < bottom):
                raise ConfigError(
                    f"{name}", f"is {left:g}, {top:g}, {right:g}, {bottom:g}",
                    "left, top, right and bottom in pixels, right and bottom the larger ones",
                    "Correct it: nobody would ever be there.",
                )  # fmt: skip

    def centre_m(self, box_xyxy: NDArray[Any]) -> NDArray[np.float64]:
        """Centre of a box in pixels, (4,), as metres from the picture's corner, (2,)."""
        left, top, right, bottom = (float(value) for value in box_xyxy)
        return np.array((left + right, top + bottom)) / (2 * self.pixels_per_m)

    @property
    def places(self) -> tuple[str, ...]:
        """Those of `PLACES` that are in the picture."""
        return tuple(place for place in PLACES if self._boxes_of(place))

    def is_at(self, place: str, box_xyxy: NDArray[Any]) -> bool:
        """Whether a box in pixels, (4,), touches a place of `PLACES`."""
        return any(_touch(box_xyxy, box) for box in self._boxes_of(place))

    def _boxes_of(self, place: str) -> tuple[Box, ...]:
        feeders = (self.feeder_xyxy,) if self.feeder_xyxy else ()
        return feeders if place == "feeder" else self.drinkers_xyxy


def _touch(box: NDArray[Any], place: Box) -> bool:
    return bool(box[0] <= place[2] and box[2] >= place[0] and box[1] <= place[3] and box[3] >= place[1])
