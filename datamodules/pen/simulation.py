"""The life of a pen as a sequence of moments without pixels; the same for every picture size and camera."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from datamodules.errors import UserError
from datamodules.pen.camera import Points
from datamodules.pen.config import PenConfig
from datamodules.pen.furniture import Furniture
from datamodules.pen.herd import make_herd
from datamodules.pen.minds import Minds
from datamodules.pen.motion import Motion
from datamodules.pen.plans import Planner
from datamodules.pen.seeds import generator
from datamodules.pen.state import Body, Pose, SceneState

_STEP_S = 1 / 12  # longest step of the simulation
_WARM_UP_S = 12.0  # until the positions drawn at the start have become a herd
_HEIGHT = np.array((0.80, 0.42, 0.40, 0.66))  # of the back by posture: the higher animal covers the lower


def simulate(
    config: PenConfig, seed: int, frames: int, clip: str = "", vigour: Mapping[str, float] | None = None
) -> Iterator[SceneState]:
    """Let a pen live.

    Args:
        config: The domain. Only its pen, its herd and `fps` matter here.
        seed: Decides who the animals are and what they do.
        frames: How many moments to give, `config.fps` per second. Fewer frames are the beginning of more.
        clip: Another clip of the same animals.
        vigour: Name of an animal -> how often it chooses what takes it from its place, relative to a sound one, 0 to 1:
            a lame one lies instead. Who is not named is sound.

    Yields:
        One state per video frame.

    Raises:
        UserError: Nobody has such a name, or a vigour is not 0 to 1.
    """
    herd, furniture = make_herd(config, seed), Furniture.of(config)
    rng = generator(seed, "life", clip)
    motion = Motion(config, furniture, herd)
    minds = Minds(motion, Planner(config, furniture, motion, rng), rng, _vigour_of(herd, vigour or {}))
    toy = _Toy(furniture.toy)
    breath_hz, breath_phase = rng.uniform(0.25, 0.45, len(herd)), rng.uniform(0, 2 * np.pi, len(herd))
    rank = rng.permutation(len(herd)) * 1e-3
    substeps = int(np.ceil(1 / (config.fps * _STEP_S)))
    dt = 1 / (config.fps * substeps)

    def advance() -> None:
        minds.update(dt)
        minds.toy = toy.place
        motion.step(dt, minds.orders)
        players = [xy for i, xy in enumerate(motion.noses()) if minds.label(i) == "playwithtoy"]
        toy.step(dt, players, rng)

    minds.settle()
    for _ in range(round(_WARM_UP_S / dt)):
        advance()
    for index in range(frames):
        time_s = index / config.fps
        swell = 0.012 * np.sin(2 * np.pi * breath_hz * time_s + breath_phase) * (1 + 2 * motion.posture[:, 2])
        depth = motion.posture @ _HEIGHT + 2 * motion.lift + rank
        sides = minds.sides
        yield SceneState(
            index,
            time_s,
            tuple(
                Pose(
                    x=float(motion.xy[i, 0]),
                    y=float(motion.xy[i, 1]),
                    heading=float(motion.heading[i]),
                    bend=float(motion.bend[i]),
                    head_yaw=float(motion.head_yaw[i]),
                    head_low=float(motion.head_low[i]),
                    posture=tuple(motion.posture[i].tolist()),
                    side=sides[i],
                    gait=float(motion.gait[i]),
                    stride=float(min(1.0, abs(motion.speed[i]) / 0.6 + abs(motion.turn[i]) * 0.2)),
                    swell=float(swell[i]),
                    lift_m=float(motion.lift[i]),
                    depth=float(depth[i]),
                    behaviour=minds.label(i),
                )
                for i in range(len(herd))
            ),
            toy.swing,
        )
        for _ in range(substeps):
            advance()


def _vigour_of(herd: Sequence[Body], vigour: Mapping[str, float]) -> list[float]:
    names = [body.name for body in herd]
    for name, value in vigour.items():
        if name not in names or not 0 <= value <= 1:
            expected = f"a value of 0 to 1 of one of {', '.join(names)}"
            raise UserError("pen, vigour", f"is {value} of '{name}'", expected, "Correct name or value.")
    return [vigour.get(name, 1.0) for name in names]


class _Toy:
    """A ball on a chain: a damped pendulum that snouts push.

    Args:
        rest: Where it hangs, (x, y) in metres.
    """

    def __init__(self, rest: tuple[float, float]) -> None:
        self._rest = rest
        self._offset, self._velocity = np.zeros(2), np.zeros(2)

    @property
    def swing(self) -> tuple[float, float]:
        """Offset from its rest in metres."""
        return float(self._offset[0]), float(self._offset[1])

    @property
    def place(self) -> tuple[float, float]:
        """Where it is, in metres."""
        return self._rest[0] + self.swing[0], self._rest[1] + self.swing[1]

    def step(self, dt: float, snouts: list[Points], rng: np.random.Generator) -> None:
        """Swing on, pushed by the snouts at it."""
        force = -8.0 * self._offset - 0.9 * self._velocity
        for _ in snouts:
            force = force + rng.normal(0, 1.6, 2)
        self._velocity = self._velocity + force * dt
        self._offset = self._offset + self._velocity * dt
        radius = float(np.hypot(*self._offset))
        if radius > 0.25:
            self._offset *= 0.25 / radius
            self._velocity *= 0.5
