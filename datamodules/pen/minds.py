"""What the animals of a pen want: each follows a plan of tasks and draws the next when it is done."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from datamodules.pen import ethogram as etho
from datamodules.pen.camera import Points
from datamodules.pen.motion import Motion, Orders
from datamodules.pen.plans import Planner
from datamodules.pen.tasks import Task

_ACTIVITIES = tuple(etho.BUDGET)
_WEIGHTS = np.array([etho.BUDGET[activity].weight for activity in _ACTIVITIES])
_SECONDS = np.array([etho.BUDGET[activity].seconds + 3.0 for activity in _ACTIVITIES])
_ON_THE_MOVE = np.array([activity not in ("rest", "stand", "sit") for activity in _ACTIVITIES])
_PAIRED = {"greet": 2.2, "fight": 1.6, "chase": 2.5, "poke": 2.5, "mount": 2.0}
"""How far, in metres, an animal looks for a partner."""

_REST_LABELS = {etho.LYING: "lying", etho.ON_SIDE: "sleep", etho.SITTING: "sitting"}


class _Mind:
    """The plan of one animal and how far it got."""

    def __init__(self, rng: np.random.Generator, vigour: float) -> None:
        self.weights = np.where(_ON_THE_MOVE, vigour, 1.0) * _WEIGHTS
        self.plan: deque[Task] = deque()
        self.spent_s = 0.0  # on the present task
        self.arrived = False
        self.close = True  # still at the goal: others push, partners walk off
        self.glance, self.glance_left_s = 0.0, 0.0
        self.phase = float(rng.uniform(0, 2 * np.pi))
        self.side = int(rng.choice((-1, 1)))
        self.bed: tuple[float, float, float] | None = None

    @property
    def task(self) -> Task | None:
        return self.plan[0] if self.plan else None

    def begin(self, tasks: list[Task]) -> None:
        self.plan = deque(tasks)
        self.spent_s, self.arrived = 0.0, False

    def finish(self, *, all_of_it: bool = False) -> None:
        if all_of_it:
            self.plan.clear()
        else:
            self.plan.popleft()
        self.spent_s, self.arrived = 0.0, False


class Minds:
    """The minds of a herd.

    Args:
        motion: The bodies that they move.
        planner: Makes their plans.
        rng: Source of chance.
        vigour: How often each animal chooses what takes it from its place, relative to a sound one.
    """

    def __init__(self, motion: Motion, planner: Planner, rng: np.random.Generator, vigour: Sequence[float]) -> None:
        self._motion, self._planner, self._rng = motion, planner, rng
        self._minds = [_Mind(rng, one) for one in vigour]
        self.orders = Orders(len(motion))
        self._time_s = 0.0
        self.toy = planner.play()[0].goal

    @property
    def sides(self) -> list[int]:
        """To which side each animal's legs point when it lies on its side."""
        return [mind.side for mind in self._minds]

    def settle(self) -> None:
        """Put every animal somewhere, in the middle of something, by the shares of the activities."""
        for index, mind in enumerate(self._minds):
            x, y = min(
                (self._planner.free_spot(0.5) for _ in range(12)),
                key=lambda spot: sum(max(0.0, 0.9 - float(np.hypot(*(spot - xy)))) for xy in self._motion.xy[:index]),
            )
            self._motion.xy[index] = x, y
            self._motion.heading[index] = self._rng.choice((0, np.pi)) + self._rng.normal(0, 0.5)
            shares = mind.weights * _SECONDS
            activity = _ACTIVITIES[int(self._rng.choice(len(_ACTIVITIES), p=shares / shares.sum()))]
            if activity == "rest":
                self._lie_down(index)
                assert mind.bed is not None
                self._motion.xy[index], self._motion.heading[index] = mind.bed[:2], mind.bed[2]
                for _ in range(min(int(self._rng.integers(1, 4)), len(mind.plan) - 1)):
                    mind.plan.popleft()
                mind.spent_s = float(self._rng.uniform(0, 0.8)) * mind.plan[0].seconds
                self._motion.posture[index] = np.eye(4)[mind.plan[0].posture]

    def update(self, dt: float) -> None:
        """Look around, decide, and write the orders for the next step."""
        self._time_s += dt
        noses = self._motion.noses()
        for index, mind in enumerate(self._minds):
            if mind.task is None:
                self._decide(index)
            task = mind.task
            assert task is not None
            mind.spent_s += dt
            goal = self._goal(task)
            if task.partner >= 0 and not self._is_willing(index, task):
                mind.finish(all_of_it=True)
                continue
            mind.close = goal is None or self._away_m(index, task, goal, noses) < 1.8 * task.reach_m + 0.04
            if not mind.arrived:
                mind.arrived = goal is None or self._is_there(index, task, goal, noses)
                if mind.arrived:
                    mind.spent_s = 0.0
                elif mind.spent_s > task.patience_s:
                    mind.finish(all_of_it=task.behaviour != "investigating")
                    continue
            elif mind.spent_s > task.seconds:
                mind.finish()
                continue
            self._order(index, mind, task, goal, noses[index], dt)

    def label(self, index: int) -> str:
        """Name what the animal can be seen to do."""
        posture = int(self._motion.posture[index].argmax())
        if posture != etho.STANDING:
            return _REST_LABELS[posture]
        mind, speed = self._minds[index], abs(float(self._motion.speed[index]))
        task = mind.task
        if task is None:
            return "standing"
        label = task.behaviour if mind.arrived and mind.close else task.on_the_way
        if label in ("run", "chase") and speed < 0.7:
            label = "walk"
        if label in _REST_LABELS.values() or label in ("walk", "standing"):
            return "walk" if speed > 0.10 else "standing"
        return label

    def _decide(self, index: int) -> None:
        mind = self._minds[index]
        mind.bed = None
        order = self._rng.choice(len(_ACTIVITIES), size=6, p=mind.weights / mind.weights.sum())
        for number in order:
            activity = _ACTIVITIES[int(number)]
            if activity == "rest":
                self._lie_down(index)
                return
            if activity in _PAIRED:
                if self._pair_up(index, activity):
                    return
                continue
            tasks = self._alone(index, activity)
            if tasks:
                mind.begin(tasks)
                return
        mind.begin(self._planner.stand())

    def _alone(self, index: int, activity: etho.Activity) -> list[Task]:
        if activity in ("eat", "drink"):
            return self._planner.use(activity, {mind.task.place for mind in self._minds if mind.task})
        if activity == "investigate":
            return self._planner.investigate(index)
        if activity == "walk":
            return self._planner.walk(index)
        if activity == "play":
            return self._planner.play()
        return self._planner.sit() if activity == "sit" else self._planner.stand()

    def _lie_down(self, index: int) -> None:
        mind = self._minds[index]
        mind.bed = self._planner.bed(
            index, [other.bed for other in self._minds if other.bed is not None and other is not mind]
        )
        mind.side = int(self._rng.choice((-1, 1)))
        self.orders.rest_bend[index] = float(np.clip(self._rng.normal(0, 0.3), -0.6, 0.6))
        mind.begin(self._planner.rest(index, mind.bed[:2], mind.bed[2]))

    def _pair_up(self, index: int, activity: etho.Activity) -> bool:
        """Start something with another animal that is near and has nothing better to do."""
        near = np.hypot(*(self._motion.xy - self._motion.xy[index]).T) < _PAIRED[activity]
        lying = self._motion.posture[:, etho.STANDING] < 0.5
        others = [
            other
            for other in np.flatnonzero(near)
            if other != index and (activity == "poke" or not lying[other]) and self._is_idle(int(other))
        ]
        if not others:
            return False
        partner = int(self._rng.choice(others))
        mind, other = self._minds[index], self._minds[partner]
        if activity in ("poke", "mount"):
            mind.begin(self._planner.poke(partner) if activity == "poke" else self._planner.mount(partner))
            return True
        pair = {"greet": self._planner.greet, "fight": self._planner.fight, "chase": self._planner.chase}[activity]
        mine, theirs = pair(index, partner)
        mind.begin([mine])
        other.begin([theirs])
        other.bed = None
        return True

    def _is_idle(self, index: int) -> bool:
        task = self._minds[index].task
        return task is None or (task.partner < 0 and task.place < 0)

    def _is_willing(self, index: int, task: Task) -> bool:
        other = self._minds[task.partner].task
        if task.spot in ("rump", "back"):
            return bool(self._motion.posture[task.partner, etho.STANDING] > 0.5)
        return not task.mutual or (other is not None and other.partner == index)

    def _goal(self, task: Task) -> tuple[float, float] | None:
        if task.behaviour == "playwithtoy":
            return self.toy
        if task.partner < 0:
            return task.goal
        motion, other = self._motion, task.partner
        if task.spot == "snout":
            x, y = motion.noses()[other]
            return float(x), float(y)
        forward = {"neck": 0.95, "flank": -0.2, "rump": -1.1, "back": -0.95}[task.spot] * float(
            motion.half_trunk[other]
        )
        heading = float(motion.heading[other])
        return (
            float(motion.xy[other, 0]) + forward * float(np.cos(heading)),
            float(motion.xy[other, 1]) + forward * float(np.sin(heading)),
        )

    def _away_m(self, index: int, task: Task, goal: tuple[float, float], noses: Points) -> float:
        point = noses[index] if task.by_nose else self._motion.xy[index]
        return float(np.hypot(*(point - goal)))

    def _is_there(self, index: int, task: Task, goal: tuple[float, float], noses: Points) -> bool:
        if self._away_m(index, task, goal, noses) > task.reach_m:
            return False
        if task.heading is None:
            return True
        return abs(float((task.heading - self._motion.heading[index] + np.pi) % (2 * np.pi)) - np.pi) < 0.3

    def _order(
        self, index: int, mind: _Mind, task: Task, goal: tuple[float, float] | None, nose: Points, dt: float
    ) -> None:
        orders, motion = self.orders, self._motion
        head = task.head if mind.arrived else task.way_head
        staying = mind.arrived and (goal is None or task.posture != etho.STANDING)
        orders.goal[index] = np.nan if goal is None or staying else goal
        orders.by_nose[index] = task.by_nose
        orders.heading[index] = np.nan if task.heading is None or staying else task.heading
        if task.spot == "back" and task.partner >= 0:
            orders.heading[index] = motion.heading[task.partner]
        orders.cruise[index] = task.cruise_m_per_s
        orders.partner[index] = task.partner
        orders.posture[index] = task.posture if mind.arrived else etho.STANDING
        orders.lift[index] = task.lift_m if mind.arrived else 0.0
        wave = float(np.sin(2 * np.pi * head.rate_hz * self._time_s + mind.phase))
        nod = float(np.sin(2 * np.pi * 1.37 * head.rate_hz * self._time_s + 2 * mind.phase))
        orders.head_low[index] = np.clip(head.low + head.nod * nod, 0.0, 1.0)
        yaw = head.sweep * wave
        if head.glances:
            mind.glance_left_s -= dt
            if mind.glance_left_s <= 0:
                mind.glance, mind.glance_left_s = float(self._rng.normal(0, 0.35)), float(self._rng.uniform(0.7, 3.0))
            yaw += mind.glance
        if goal is not None and not staying and task.by_nose and np.hypot(*(nose - goal)) < 0.6:
            dx, dy = goal - motion.xy[index]
            yaw += float(np.clip((np.arctan2(dy, dx) - motion.heading[index] + np.pi) % (2 * np.pi) - np.pi, -0.6, 0.6))
        orders.head_yaw[index] = yaw
