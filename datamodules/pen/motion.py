"""How bodies move: steering towards a place, turning, changing posture, pressing against each other and against walls.

All animals of a pen step together, as arrays over the herd. A body is pushed as four discs along its axis; animals that
rest do not give way, those on their feet squeeze past each other and step over the ones that lie.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.pen.camera import Points
from datamodules.pen.config import PenConfig
from datamodules.pen.ethogram import STANDING
from datamodules.pen.furniture import HOPPER_RADIUS_M, TROUGH_DEPTH_M, TROUGH_LENGTH_M, Furniture
from datamodules.pen.state import Body

Values = NDArray[np.float64]

_PUSH_PER_S = 3.0  # share of an overlap that is undone in a second
_POSTURE_S = 1.4  # time from standing to lying


class Orders:
    """What each animal wants at this moment; arrays over the herd, written by its mind and read by `Motion.step`.

    Args:
        count: Number of animals.
    """

    def __init__(self, count: int) -> None:
        self.goal = np.full((count, 2), np.nan)  # metres; nan: stay
        self.by_nose = np.ones(count, bool)  # whether the snout or the middle of the trunk shall get there
        self.heading = np.full(count, np.nan)  # to take at the goal
        self.cruise = np.zeros(count)  # m/s
        self.posture = np.full(count, STANDING)
        self.head_low = np.zeros(count)
        self.head_yaw = np.zeros(count)
        self.rest_bend = np.zeros(count)  # curvature while resting, 1/m
        self.lift = np.zeros(count)  # metres
        self.partner = np.full(count, -1)  # whom the animal does not avoid


class Motion:
    """Places, directions and postures of a herd.

    Args:
        config: The pen.
        furniture: What stands in the way.
        bodies: The herd.
    """

    def __init__(self, config: PenConfig, furniture: Furniture, bodies: Sequence[Body]) -> None:
        count = len(bodies)
        self._half = np.array((config.pen_length_m / 2, config.pen_width_m / 2))
        self._furniture = furniture
        self.nose_m = np.array([body.nose_m for body in bodies])
        self.half_trunk = np.array([body.build.trunk / 2 * body.length_m for body in bodies])
        self.half_width = np.array([body.half_width_m for body in bodies])
        self.xy = np.zeros((count, 2))
        self.heading = np.zeros(count)
        self.speed = np.zeros(count)
        self.turn = np.zeros(count)
        self.bend = np.zeros(count)
        self.head_yaw = np.zeros(count)
        self.head_low = np.zeros(count)
        self.gait = np.zeros(count)
        self.lift = np.zeros(count)
        self.posture = np.zeros((count, 4))
        self.posture[:, STANDING] = 1.0

    def __len__(self) -> int:
        return len(self.heading)

    def noses(self) -> Points:
        """Where the snouts are, (N, 2) in metres."""
        front = self.heading + self.bend * self.half_trunk / 2
        look = self.heading + self.bend * self.half_trunk + self.head_yaw
        head = self.nose_m - self.half_trunk
        noses: Points = self.xy + self.half_trunk[:, None] * _unit(front) + head[:, None] * _unit(look)
        return noses

    def step(self, dt: float, orders: Orders) -> None:
        """Move everything on by `dt` seconds."""
        if not len(self):
            return
        upright = self.posture[:, STANDING]
        self._walk(dt, orders, upright)
        self._press(dt, orders, upright)
        self._stay_inside(upright)
        target = np.eye(4)[orders.posture]
        change = np.clip(target - self.posture, -dt / _POSTURE_S, dt / _POSTURE_S)
        self.posture += change
        self.posture /= self.posture.sum(1, keepdims=True)
        resting = 1 - upright
        bend = np.clip(0.5 * self.turn, -0.75, 0.75) * upright + orders.rest_bend * resting
        self.bend += (bend - self.bend) * min(1.0, 3 * dt)
        yaw = np.clip(orders.head_yaw + 0.35 * self.turn * upright, -0.8, 0.8)
        self.head_yaw += (yaw - self.head_yaw) * min(1.0, 5 * dt)
        self.head_low += (orders.head_low - self.head_low) * min(1.0, 4 * dt)
        self.lift += (orders.lift - self.lift) * min(1.0, 3 * dt)
        self.gait += dt * (2 * np.pi) * (np.abs(self.speed) * 1.5 + np.abs(self.turn) * 0.35)

    def _walk(self, dt: float, orders: Orders, upright: Values) -> None:
        """Steer on the shortest way, slow down for turns and at the goal."""
        ahead, has_goal = _unit(self.heading), ~np.isnan(orders.goal[:, 0])
        to_goal = np.where(has_goal[:, None], orders.goal - self.xy, 0.0)
        distance = np.hypot(*to_goal.T)
        error = _wrap(np.arctan2(to_goal[:, 1], to_goal[:, 0]) - self.heading)
        along = (to_goal * ahead).sum(1) - np.where(orders.by_nose, self.nose_m, 0.0)
        near = ~orders.by_nose & (distance < 0.22)
        settle = np.where(np.isnan(orders.heading), 0.0, _wrap(orders.heading - self.heading))
        error = np.where(near | ~has_goal, settle, error) + np.where(
            has_goal & ~near, self._avoidance(orders, ahead, upright), 0.0
        )
        facing = np.clip(np.cos(error), 0.0, 1.0) ** 2
        want = np.clip(2.0 * along, -0.22, orders.cruise) * np.where(along > 0, np.maximum(facing, 0.08), 1.0)
        want = np.where(has_goal & (upright > 0.9), want, 0.0)
        limit = np.where(np.abs(self.speed) > 0.8, 3.5, 1.8)
        self.speed += np.clip(want - self.speed, -4 * dt, (1.2 + orders.cruise) * dt)
        turn = np.where(upright > 0.9, np.clip(2.5 * error, -limit, limit), 0.0)
        self.turn += (turn - self.turn) * min(1.0, 7 * dt)
        self.heading = _wrap(self.heading + self.turn * dt)
        self.xy += (self.speed * dt)[:, None] * _unit(self.heading)
        drift = np.where(near, 0.6 * dt, 0.0)[:, None] * to_goal  # small sidesteps end in the right place
        self.xy += np.where(upright[:, None] > 0.5, drift, 0.0)

    def _avoidance(self, orders: Orders, ahead: Points, upright: Values) -> Values:
        """By how much to steer away from animals that stand in the way; those that lie are stepped over."""
        offset = self.xy[None] - self.xy[:, None]  # (N, N, 2): from row to column
        along = (offset * ahead[:, None]).sum(-1)
        right = np.stack((-ahead[:, 1], ahead[:, 0]), 1)
        beside = (offset * right[:, None]).sum(-1)
        near = (along > 0.2) & (along < 1.3) & (np.abs(beside) < 0.45)
        near[np.arange(len(self)), orders.partner] &= orders.partner < 0
        strength = near * (1 - along / 1.3) * (0.12 + 0.38 * upright[None])
        steer: Values = (-np.where(beside >= 0, 1.0, -1.0) * strength).sum(1)
        return np.clip(steer, -0.7, 0.7)

    def _discs(self) -> tuple[Points, Values]:
        """Centres (N, 4, 2) and radii (N, 4): rump, middle, shoulders, head."""
        forward = np.stack(
            (-0.62 * self.half_trunk, 0 * self.half_trunk, 0.62 * self.half_trunk, 0.80 * self.nose_m), 1
        )
        turned = self.heading[:, None] + self.bend[:, None] * forward / 2
        turned[:, 3] += 0.4 * self.head_yaw
        centres = self.xy[:, None] + forward[..., None] * _unit(turned)
        return centres, self.half_width[:, None] * np.array((0.92, 0.98, 0.92, 0.45))

    def _press(self, dt: float, orders: Orders, upright: Values) -> None:
        """Push overlapping bodies apart; who rests does not give way, and who walks steps over those that lie."""
        count = len(self)
        centres, radii = self._discs()
        points, radius = centres.reshape(-1, 2), radii.reshape(-1)
        offset = points[:, None] - points[None]  # (4N, 4N, 2): from column to row
        distance = np.hypot(offset[..., 0], offset[..., 1]) + 1e-6
        overlap = np.maximum(radius[:, None] + radius[None] - distance, 0.0)
        mobility = 0.04 + 0.96 * upright
        yielding = mobility[:, None] / (mobility[:, None] + mobility[None])
        both_up = upright[:, None] * upright[None]
        stiffness = np.where(np.abs(upright[:, None] - upright[None]) > 0.5, 0.10, 1.0 - 0.55 * both_up)
        mounting = (orders.lift > 0.05)[:, None] | (orders.lift > 0.05)[None]
        stiffness = np.where(mounting | np.eye(count, dtype=bool), 0.0, stiffness) * yielding
        overlap *= np.repeat(np.repeat(stiffness, 4, 0), 4, 1)
        force = ((overlap / distance)[..., None] * offset).sum(1).reshape(count, 4, 2)
        shift = force.sum(1) * min(1.0, _PUSH_PER_S * dt)
        length = np.hypot(*shift.T)[:, None]
        shift *= np.minimum(1.0, 0.8 * dt / np.maximum(length, 1e-9))  # nobody is thrown
        arm = centres - self.xy[:, None]
        torque = (arm[..., 0] * force[..., 1] - arm[..., 1] * force[..., 0]).sum(1)
        self.xy += shift
        self.heading = _wrap(self.heading + np.clip(torque * 4.0, -0.8, 0.8) * dt)

    def _stay_inside(self, upright: Values) -> None:
        """Keep trunk and snout between the walls and the trunk off the feeder."""
        centres, radii = self._discs()
        centres[:, 3], radii[:, 3] = self.noses(), 0.04
        limit = np.maximum(self._half - radii[..., None], 0.05)
        push = np.clip(centres, -limit, limit) - centres  # (N, 4, 2)
        out = self._feeder_push(centres[:, :3], radii[:, :3])
        push[:, :3] += out
        largest = np.take_along_axis(push, np.abs(push).argmax(1)[:, None], 1)[:, 0]
        self.xy += largest * 0.7
        arm = centres - self.xy[:, None]
        torque = (arm[..., 0] * push[..., 1] - arm[..., 1] * push[..., 0]).sum(1)
        self.heading = _wrap(self.heading + np.clip(torque * 0.8, -0.06, 0.06) * (0.2 + 0.8 * upright))

    def _feeder_push(self, centres: Points, radii: Values) -> Points:
        offset = centres - np.array(self._furniture.feeder)
        if self._furniture.hopper:
            distance = np.hypot(offset[..., 0], offset[..., 1]) + 1e-6
            depth = np.maximum(HOPPER_RADIUS_M * 0.95 + radii - distance, 0.0)
            push: Points = offset * (depth / distance)[..., None]
            return push
        inside = (np.abs(offset[..., 0]) < TROUGH_LENGTH_M / 2) & (offset[..., 1] > -TROUGH_DEPTH_M / 2 - radii * 0.8)
        depth = np.where(inside, offset[..., 1] + TROUGH_DEPTH_M / 2 + radii * 0.8, 0.0)
        return np.stack((np.zeros_like(depth), -depth), -1)


def _unit(angle: Values) -> Points:
    return np.stack((np.cos(angle), np.sin(angle)), -1)


def _wrap(angle: Values) -> Values:
    return (angle + np.pi) % (2 * np.pi) - np.pi
