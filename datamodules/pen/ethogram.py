"""What the animals do, how often and for how long, and how each behaviour looks from above.

The labels are those of the Edinburgh data set (`datamodules.edinburgh_output.BEHAVIOURS`); the shares follow the counts
of its annotated subset: much sleep and rooting, little play. Every behaviour can be told from a short piece of video:

- `lying`: on the belly, legs tucked in, head up and looking around.
- `sleep`: flat on one side, all legs stretched out to the other, head on the floor and still; only the flank moves with
  the breath.
- `sitting`: on the haunches, the trunk foreshortened, the hind legs spread.
- `standing`: on four legs, head level, in one place. `walk`, `run`: the same with striding legs and a change of place.
- `investigating`: snout on the floor, sweeping from side to side, slowly ahead.
- `eat`: snout in the feeder, chewing. `drink`: snout at a drinker. `playwithtoy`: snout at the toy, which swings.
- `nose-to-nose`: two animals, snout to snout. `fight`: two animals pressed together, biting at neck and ear.
- `nose-poke-elsewhere`: pumping with the snout against another's flank. `jumpontopof`: fore legs on another's back.
- `chase`: running after another, which runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

STANDING, LYING, ON_SIDE, SITTING = range(4)
"""Indices into `datamodules.pen.species.POSTURES`."""

Activity = Literal[
    "rest", "investigate", "stand", "eat", "walk", "drink", "sit", "greet", "fight", "chase", "play", "poke", "mount"
]


@dataclass(frozen=True, slots=True)
class Budget:
    """How an animal spends its time.

    Args:
        weight: How often this is chosen, relative to the others.
        seconds: Mean duration, without the way there.
    """

    weight: float
    seconds: float


BUDGET: Mapping[Activity, Budget] = {
    "rest": Budget(7.5, 95.0),
    "investigate": Budget(28.0, 11.0),
    "stand": Budget(17.0, 7.0),
    "eat": Budget(13.0, 17.0),
    "walk": Budget(13.0, 1.0),
    "drink": Budget(3.5, 6.0),
    "sit": Budget(2.5, 9.0),
    "greet": Budget(5.0, 4.5),
    "fight": Budget(2.6, 6.0),
    "chase": Budget(2.6, 2.5),
    "play": Budget(0.9, 6.0),
    "poke": Budget(0.8, 5.0),
    "mount": Budget(0.4, 3.0),
}


@dataclass(frozen=True, slots=True)
class Head:
    """How the head is carried.

    Args:
        low: 0 level, 1 snout on the ground.
        sweep: Amplitude of its regular turning from side to side, in radians.
        rate_hz: Of that turning.
        glances: Whether the animal looks around at irregular times.
        nod: Amplitude of lifting and lowering, in units of `low`.
    """

    low: float = 0.15
    sweep: float = 0.0
    rate_hz: float = 0.5
    glances: bool = False
    nod: float = 0.0


LEVEL = Head(0.15, 0.05, 0.8)
LOOKING = Head(0.10, 0.04, 0.3, glances=True)
ROOTING = Head(0.95, 0.42, 0.55, nod=0.12)
EATING = Head(0.85, 0.10, 1.4, nod=0.25)
DRINKING = Head(0.35, 0.04, 2.0, nod=0.12)
STILL = Head(0.9)
RESTING = Head(0.35, 0.03, 0.15, glances=True)
PLAYING = Head(0.15, 0.45, 1.3, nod=0.2)
GREETING = Head(0.25, 0.12, 0.9)
BITING = Head(0.3, 0.50, 1.7, nod=0.2)
PUMPING = Head(0.6, 0.10, 1.6, nod=0.35)
