"""Plans: which tasks make up each activity, and where in the pen they are done."""

from collections.abc import Sequence

import numpy as np

from datamodules.pen import ethogram as etho
from datamodules.pen.config import PenConfig
from datamodules.pen.furniture import Furniture, Place
from datamodules.pen.motion import Motion
from datamodules.pen.tasks import ROOT_M_PER_S, RUN_M_PER_S, Task

DRINKER = 100
"""Added to the number of a drinker to tell it from a place at the feeder."""


class Planner:
    """Makes plans for single animals and pairs.

    Args:
        config: The pen.
        furniture: What stands in it.
        motion: Where everyone is.
        rng: Source of chance, shared with the minds.
    """

    def __init__(self, config: PenConfig, furniture: Furniture, motion: Motion, rng: np.random.Generator) -> None:
        self._half = np.array((config.pen_length_m / 2, config.pen_width_m / 2))
        self._furniture = furniture
        self._motion = motion
        self._rng = rng

    def duration(self, activity: etho.Activity) -> float:
        """Draw how long to do something: a gamma distribution, rarely very short."""
        return float(self._rng.gamma(3.0, etho.BUDGET[activity].seconds / 3.0))

    def free_spot(self, margin_m: float = 0.35) -> tuple[float, float]:
        """Draw a place on the floor."""
        x, y = self._rng.uniform(-1, 1, 2) * (self._half - margin_m)
        return float(x), float(y)

    def stand(self) -> list[Task]:
        """Stay and look around."""
        return [Task("standing", self.duration("stand"), etho.LOOKING)]

    def walk(self, index: int) -> list[Task]:
        """Cross the pen: the goal is the farthest of three places."""
        here = self._motion.xy[index]
        spots = sorted((self.free_spot() for _ in range(3)), key=lambda spot: float(np.hypot(*(spot - here))))
        return [Task("standing", self.duration("walk"), etho.LOOKING, goal=spots[-1], patience_s=12)]

    def investigate(self, index: int) -> list[Task]:
        """Root along a crooked line."""
        tasks, left = [], self.duration("investigate")
        spot, heading = self._motion.noses()[index], self._motion.heading[index]
        while left > 0:
            stay = float(self._rng.uniform(1.0, 4.0))
            heading = heading + self._rng.normal(0, 0.8)
            step = self._rng.uniform(0.15, 0.7)
            spot = spot + step * np.array((np.cos(heading), np.sin(heading)))
            inside = np.clip(spot, 0.12 - self._half, self._half - 0.12)
            if (inside != spot).any():  # at a wall turn back to the middle
                heading = float(np.arctan2(*(-inside)[::-1])) + self._rng.normal(0, 0.6)
            spot = inside
            tasks.append(
                Task("investigating", stay, etho.ROOTING, goal=(float(spot[0]), float(spot[1])),
                     cruise_m_per_s=ROOT_M_PER_S, on_the_way="investigating", way_head=etho.ROOTING,
                     patience_s=step / ROOT_M_PER_S + 3)
            )  # fmt: skip
            left -= stay + step / ROOT_M_PER_S
        return tasks

    def use(self, activity: etho.Activity, taken: set[int]) -> list[Task]:
        """Eat or drink at a place that nobody has taken; an empty plan if there is none."""
        places: Sequence[Place] = self._furniture.feeder_places
        first, behaviour, head = 0, "eat", etho.EATING
        if activity == "drink":
            places, first, behaviour, head = self._furniture.drinker_places, DRINKER, "drink", etho.DRINKING
        free = [number for number in range(len(places)) if first + number not in taken]
        if not free:
            return []
        number = int(self._rng.choice(free))
        place = places[number]
        return [
            Task("standing", 0.0, etho.LEVEL, goal=place.approach, reach_m=0.3, place=first + number),
            Task(behaviour, self.duration(activity), head, goal=place.nose, reach_m=0.1, cruise_m_per_s=0.3,
                 place=first + number, patience_s=6),
        ]  # fmt: skip

    def play(self) -> list[Task]:
        """Push the toy."""
        toy = self._furniture.toy
        return [Task("playwithtoy", self.duration("play"), etho.PLAYING, goal=toy, reach_m=0.16)]

    def sit(self) -> list[Task]:
        """Sit where the animal is."""
        return [Task("sitting", self.duration("sit"), etho.RESTING, posture=etho.SITTING)]

    def rest(self, index: int, spot: tuple[float, float], heading: float) -> list[Task]:
        """Lie down at a spot, mostly sleep, lie awake again."""
        total = self.duration("rest")
        way = Task("standing", 0.3, etho.LEVEL, goal=spot, heading=heading, by_nose=False, reach_m=0.16, patience_s=14)
        if self._rng.random() < 0.2:
            return [way, Task("lying", 0.5 * total, etho.RESTING, posture=etho.LYING)]
        awake = float(self._rng.uniform(3.0, 9.0))
        return [
            way,
            Task("lying", awake, etho.RESTING, posture=etho.LYING),
            Task("sleep", total, etho.STILL, posture=etho.ON_SIDE),
            Task("lying", awake, etho.RESTING, posture=etho.LYING),
            Task("sitting", 1.2, etho.RESTING, posture=etho.SITTING),
        ]

    def greet(self, index: int, partner: int) -> tuple[Task, Task]:
        """Snout to snout; the partner waits and turns."""
        seconds = self.duration("greet")
        going = Task("nose-to-nose", seconds, etho.GREETING, partner=partner, reach_m=0.2, patience_s=6, mutual=True)
        waiting = Task("nose-to-nose", seconds, etho.GREETING, partner=index, reach_m=0.2, patience_s=6, mutual=True,
                       cruise_m_per_s=0.12, on_the_way="standing", way_head=etho.LOOKING)  # fmt: skip
        return going, waiting

    def fight(self, index: int, partner: int) -> tuple[Task, Task]:
        """Both go for the other's neck."""
        seconds = self.duration("fight")
        first, second = (
            Task("fight", seconds, etho.BITING, partner=other, spot="neck", reach_m=0.33, cruise_m_per_s=0.75,
                 patience_s=5, mutual=True)
            for other in (partner, index)
        )  # fmt: skip
        return first, second

    def chase(self, index: int, partner: int) -> tuple[Task, Task]:
        """The partner runs to the far end, this animal after it."""
        away = self._half[0] - 0.6
        x = -away if self._motion.xy[partner, 0] > 0 else away
        goal = (float(x), float(self._rng.uniform(-0.4, 0.4)) * float(self._half[1]))
        chase = Task("standing", 0.4, etho.LEVEL, partner=partner, spot="rump", reach_m=0.1, cruise_m_per_s=RUN_M_PER_S,
                     on_the_way="chase", patience_s=4)  # fmt: skip
        flee = Task("standing", 1.0, etho.LOOKING, goal=goal, reach_m=0.4, cruise_m_per_s=1.15 * RUN_M_PER_S,
                    on_the_way="run", patience_s=5)  # fmt: skip
        return chase, flee

    def poke(self, partner: int) -> list[Task]:
        """Pump with the snout against a flank."""
        return [
            Task(
                "nose-poke-elsewhere", self.duration("poke"), etho.PUMPING, partner=partner, spot="flank", reach_m=0.16
            )
        ]

    def mount(self, partner: int) -> list[Task]:
        """Climb onto another from behind."""
        return [Task("jumpontopof", self.duration("mount"), etho.LEVEL, partner=partner, spot="back", by_nose=False,
                     reach_m=0.3, lift_m=0.22, patience_s=6)]  # fmt: skip

    def bed(self, index: int, beds: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
        """Find a place (x, y, heading) to lie: mostly against others that lie, on the solid floor, near.

        Args:
            index: Who looks for it.
            beds: Those that are taken.
        """
        width = 2.0 * float(self._motion.half_width[index])
        here, best, best_score = self._motion.xy[index], (0.0, 0.0, 0.0), -np.inf
        reach = self._half - (0.45 * width, 0.6 * width)
        for trial in range(28):
            if beds and trial % 4:
                x, y, heading = beds[int(self._rng.integers(len(beds)))]
                heading += float(self._rng.normal(0, 0.18)) + np.pi * float(self._rng.random() < 0.35)
                side = width * self._rng.uniform(0.80, 1.15) * self._rng.choice((-1, 1))
                along = self._rng.normal(0, 0.16)
                if self._rng.random() < 0.15:  # with the head on another's rump
                    side, along = width * self._rng.normal(0, 0.3), self._rng.choice((-0.75, 0.75))
                x += along * np.cos(heading) - side * np.sin(heading)
                y += along * np.sin(heading) + side * np.cos(heading)
            else:
                x, y = self.free_spot()
                heading = float(self._rng.uniform(-np.pi, np.pi))
            score = 1.0 * bool(trial % 4) - 0.12 * float(np.hypot(x - here[0], y - here[1])) - 0.15 * x / self._half[0]
            for s in (-0.4, 0.0, 0.4):
                point = np.array((x + s * np.cos(heading), y + s * np.sin(heading)))
                score -= 6 * float(np.maximum(np.abs(point) - reach, 0).sum())
                score -= 2 * max(0.0, 0.9 - float(np.hypot(*((point - self._furniture.feeder) / (1.0, 0.7)))))
                for bx, by, bh in beds:
                    for t in (-0.4, 0.0, 0.4):
                        gap = np.hypot(point[0] - bx - t * np.cos(bh), point[1] - by - t * np.sin(bh))
                        score -= 1.5 * max(0.0, 0.72 * width - float(gap)) / width
            if score > best_score:
                best, best_score = (float(x), float(y), float(heading)), score
        return best
