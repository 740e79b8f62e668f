"""What an animal is about to do: one task after the other, each a place to be at and a way to behave there."""

from dataclasses import dataclass
from typing import Literal

from datamodules.pen.ethogram import LEVEL, STANDING, Head

Spot = Literal["snout", "neck", "flank", "rump", "back"]
"""Where on another animal's body a goal lies."""

WALK_M_PER_S, ROOT_M_PER_S, RUN_M_PER_S = 0.60, 0.20, 1.5


@dataclass(frozen=True, slots=True)
class Task:
    """Go somewhere, then do something for a while.

    Args:
        behaviour: The label once there.
        seconds: How long to stay.
        head: How the head is carried there.
        posture: Index into `POSTURES`, taken on arrival.
        goal: (x, y) in metres; None stays where the animal is, or follows `partner`.
        partner: Index of another animal that is the goal; -1 for none.
        spot: Where on the partner.
        by_nose: Whether the snout or the middle of the trunk goes to the goal.
        heading: Direction to take there; None takes any.
        reach_m: How near is near enough.
        cruise_m_per_s: Speed on the way.
        on_the_way: The label until then.
        way_head: How the head is carried until then.
        patience_s: After how long the animal gives up.
        lift_m: How far the fore body is raised there.
        place: Number of the feeder's place (0...) or the drinker (100...) that is taken meanwhile; -1 for none.
        mutual: Whether the partner must be at the same with this animal: if it goes, the task ends.
    """

    behaviour: str
    seconds: float
    head: Head
    posture: int = STANDING
    goal: tuple[float, float] | None = None
    partner: int = -1
    spot: Spot = "snout"
    by_nose: bool = True
    heading: float | None = None
    reach_m: float = 0.14
    cruise_m_per_s: float = WALK_M_PER_S
    on_the_way: str = "walk"
    way_head: Head = LEVEL
    patience_s: float = 9.0
    lift_m: float = 0.0
    place: int = -1
    mutual: bool = False
