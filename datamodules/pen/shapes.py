"""From a pose to outlines in pixels: trunk, head, ears, tail and legs of one animal, and what it takes to paint them.

The spine is a parabola: a place ``s`` metres ahead of the trunk's middle and ``v`` metres to the right of the spine
lies at ``(s, bend * s**2 / 2) + v * normal(s)``. Outlines go through this map exactly, textures through its first-order
inverse.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.pen.camera import Camera, Points
from datamodules.pen.species import SAMPLES, STATIONS, Table
from datamodules.pen.state import Body, Pose

_BACK = np.array((0.80, 0.42, 0.40, 0.66))  # height of the widest outline per posture, relative to the standing back
_LENGTH = np.array(
    (1.0, 0.98, 1.0, 0.74)
)  # length of the trunk per posture: a sitting trunk rises towards the shoulders
_FLANKS = (
    (0.30, 0.76),
    (0.44, 0.90),
    (0.58, 0.98),
    (0.72, 1.0),
    (0.86, 1.0),
)  # height, relative to the back's, and width of the flank from below
_CIRCLE = np.linspace(0, 2 * np.pi, 10, endpoint=False)
_Place = Callable[[NDArray[np.float64] | float, NDArray[np.float64] | float], Points]


@dataclass(frozen=True)
class Tube:
    """A round part that carries a texture: the trunk or the head.

    Args:
        outline: Corners in pixels, (n, 2).
        to_local: (2, 3): (column, row, 1) in pixels to metres ahead of the part's middle and to its right.
        bend: Curvature in 1/m.
        half_length_m: Half the part's length.
        widths_m: (2, SAMPLES): half-widths to the right and to the left at `STATIONS`.
        roll: By how much the part is turned about its axis, in radians; positive shows its right flank.
    """

    outline: Points
    to_local: NDArray[np.float64]
    bend: float
    half_length_m: float
    widths_m: Table
    roll: float


@dataclass(frozen=True)
class Shape:
    """One animal in pixels. The union of all outlines except `eyes` and `snout`, which lie inside, is its amodal mask.

    Args:
        legs: Painted first.
        tail: Painted next.
        flanks: The trunk from the belly up, seen beside the back where the camera looks at an angle.
        neck: Joins trunk and head, which are at different heights.
        trunk: Painted over these.
        head: Painted over the trunk.
        ears: Painted over the head.
        snout: The disc of the nose.
        eyes: Those that can be seen.
        shadow: What trunk and head cover on the ground, as two outlines.
    """

    legs: list[Points]
    tail: Points
    flanks: list[Points]
    neck: Points
    trunk: Tube
    head: Tube
    ears: list[Points]
    snout: Points
    eyes: list[Points]
    shadow: list[Points]

    @property
    def outlines(self) -> list[Points]:
        """What makes up the amodal mask."""
        return [*self.legs, self.tail, *self.flanks[::2], self.neck, self.trunk.outline, self.head.outline, *self.ears]


class _Bundle:
    """Collects outlines in metres so that the camera projects them in one go."""

    def __init__(self) -> None:
        self.parts: list[Points] = []

    def add(self, xy: Points, z: float | NDArray[np.float64]) -> None:
        points = np.empty((len(xy), 3))
        points[:, :2], points[:, 2] = xy, z
        self.parts.append(points)

    def project(self, camera: Camera) -> list[Points]:
        pixels = camera.project(np.concatenate(self.parts))
        return np.split(pixels, np.cumsum([len(part) for part in self.parts])[:-1])


def shape_of(pose: Pose, body: Body, camera: Camera) -> Shape:
    """Lay out one animal in the picture."""
    build, length, half_width = body.build, body.length_m, body.half_width_m
    weights = np.array(pose.posture)
    on_side = float(weights[2])
    scale = 1 + 0.25 * pose.lift_m
    half_trunk = float(weights @ _LENGTH) * build.trunk / 2 * length * scale
    back = float(weights @ _BACK) * build.height * length + pose.lift_m
    widths = np.tensordot(weights, build.trunk_widths, axes=1) * (half_width * scale * (1 + pose.swell))
    if pose.side < 0:
        widths = widths[::-1]
    axes = _axes(pose.heading)

    def place(s: NDArray[np.float64] | float, v: NDArray[np.float64] | float) -> Points:
        """Trunk coordinates to metres on the floor plan."""
        s, v = np.asarray(s, dtype=np.float64), np.asarray(v, dtype=np.float64)
        norm = np.sqrt(1 + (pose.bend * s) ** 2)
        local = np.stack((s - v * pose.bend * s / norm, pose.bend * s * s / 2 + v / norm), axis=-1)
        return local @ axes + (pose.x, pose.y)

    trunk_xy = place(*_rim(half_trunk, widths))
    neck = place(half_trunk - 0.08 * length, 0.0)
    look = pose.heading + pose.bend * half_trunk + pose.head_yaw
    half_head = build.head * length * scale * (1 - 0.18 * pose.head_low) / 2
    head_width = build.head_width * half_width * scale * (1 + 0.12 * on_side)
    head_axes = _axes(look)
    head_middle = neck + half_head * head_axes[0]
    head_widths = np.stack((build.head_widths, build.head_widths)) * head_width
    head_z = back * (1 - 0.45 * pose.head_low)

    def on_head(s: NDArray[np.float64] | float, v: NDArray[np.float64] | float) -> Points:
        local = np.stack((np.asarray(s, float) * half_head, np.asarray(v, float)), axis=-1)
        points: Points = local @ head_axes + head_middle
        return points

    bundle = _Bundle()
    _add_legs(bundle, pose, body, half_trunk, back, place)
    rump = np.linspace(0, 1, 5)
    wag = 0.035 * np.sin(pose.gait * 0.5 + rump * 4) * length * (1 - 0.7 * on_side)
    tail = place(-half_trunk + 0.03 * length - rump * build.tail * length, wag)
    bundle.add(_ribbon(tail, (0.016 * length) * (1.2 - rump)), back)
    bundle.add(trunk_xy, back)
    head_rim_s, head_rim_v = _rim(half_head, head_widths)
    bundle.add(np.stack((head_rim_s, head_rim_v), axis=-1) @ head_axes + head_middle, head_z)
    for sign in (1, -1):
        # Flat on its side an animal shows one ear, on the upper cheek.
        shown = 1.0 if sign == pose.side else 1 - on_side
        root = on_head(-0.30, sign * head_width * 0.72 * (1 - 0.75 * on_side))
        angle = build.ear_angle * (1 + 0.5 * on_side) * sign
        bundle.add(_leaf(root, look + angle, build.ear_length * length * max(shown, 0.05)), head_z + 0.02)
    bundle.add(_disc(on_head(0.90, 0.0), head_width * 0.33), head_z)
    for sign in (1, -1):
        bundle.add(_disc(on_head(0.18, sign * head_width * 0.62 * (1 - 0.6 * on_side)), head_width * 0.09), head_z)
    bundle.add(trunk_xy, 0.0)
    bundle.add(bundle.parts[6][:, :2], 0.0)
    for height, width in _FLANKS:
        bundle.add(place(*_rim(half_trunk * (0.5 + 0.5 * width), width * widths)), height * back + 0.4 * pose.lift_m)
    shoulder = build.neck * half_width * scale
    bundle.add(_disc(place(0.70 * half_trunk, 0.0), shoulder), 0.95 * back)
    bundle.add(_disc(on_head(-0.45, 0.0), min(0.92 * head_width, shoulder)), head_z)
    (
        legs,
        (tail_px, trunk_px, head_px, ear_a, ear_b, snout, eye_a, eye_b, shade_a, shade_b),
        (*flanks, neck_a, neck_b),
    ) = (
        (parts := bundle.project(camera))[:4],
        parts[4:14],
        parts[14:],
    )

    roll = pose.side * on_side * 1.35
    return Shape(
        legs=legs,
        tail=tail_px,
        flanks=flanks,
        trunk=Tube(trunk_px, _to_local(camera, (pose.x, pose.y), back, axes), pose.bend, half_trunk, widths, roll),
        neck=cv2.convexHull(np.concatenate((neck_a, neck_b)).astype(np.float32))[:, 0].astype(np.float64),
        head=Tube(head_px, _to_local(camera, head_middle, head_z, head_axes), 0.0, half_head, head_widths, roll * 0.7),
        ears=[ear_a, ear_b],
        snout=snout,
        eyes=[eye_a, eye_b] if on_side < 0.5 else [eye_a if pose.side > 0 else eye_b],
        shadow=[shade_a, shade_b],
    )


def _add_legs(bundle: _Bundle, pose: Pose, body: Body, half_trunk: float, back: float, place: _Place) -> None:
    """Four legs from hip to foot; each posture has its own place for the feet."""
    half_width, radius = body.half_width_m, body.build.leg_radius * body.half_width_m
    weights = np.array(pose.posture)
    for number, (front, sign) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
        swing = np.sin(pose.gait + (0.0 if front * sign > 0 else np.pi)) * pose.stride  # diagonal legs move together
        near = 1 if sign == pose.side else 0
        feet = np.array(
            (
                (front * 0.66 * half_trunk + 0.13 * body.length_m * swing, sign * 0.80 * half_width),
                ((0.98 if front > 0 else -0.52) * half_trunk, sign * (0.50 if front > 0 else 1.05) * half_width),
                (
                    (front * 0.62 + 0.14 * (near - 0.5)) * half_trunk + 0.02 * body.length_m * front,
                    pose.side * (2.05 + 0.25 * near) * half_width,
                ),
                ((0.72 if front > 0 else -0.30) * half_trunk, sign * (0.75 if front > 0 else 1.45) * half_width),
            )
        )
        foot = weights @ feet
        hip = (front * 0.62 * half_trunk, (sign * (1 - weights[2]) * 0.55 + pose.side * weights[2] * 0.8) * half_width)
        legs = place(np.array((hip[0], foot[0])), np.array((hip[1], foot[1])))
        bundle.add(
            _capsule(legs[0], legs[1], radius * 1.25, radius * 0.8), np.repeat((back * 0.5, 0.06 + pose.lift_m), 8)
        )
        assert len(bundle.parts) == number + 1


def _axes(angle: float) -> NDArray[np.float64]:
    """Rows: ahead and to the right, as seen in the picture."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array(((cos, sin), (-sin, cos)))


def _to_local(camera: Camera, middle: Points | tuple[float, float], z: float, axes: NDArray[np.float64]) -> Points:
    plane = camera.floor_at(float(middle[0]), float(middle[1]), z)
    plane[:, 2] -= np.asarray(middle)
    return axes @ plane


def _rim(half_length: float, widths: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Go once around a part: along its right side to the front, back along the left."""
    s = STATIONS * half_length
    return np.concatenate((s, s[::-1])), np.concatenate((widths[0], -widths[1][::-1]))


def _ribbon(line: Points, half_widths: NDArray[np.float64]) -> Points:
    along = np.gradient(line, axis=0)
    normal = np.stack((-along[:, 1], along[:, 0]), axis=1) / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    offset = normal * half_widths[:, None]
    return np.concatenate((line + offset, (line - offset)[::-1]))


def _capsule(start: Points, end: Points, start_radius: float, end_radius: float) -> Points:
    """A limb with round ends: 8 corners around each end."""
    direction = np.arctan2(end[1] - start[1], end[0] - start[0])
    arc = np.linspace(-np.pi / 2, np.pi / 2, 8)
    ends = []
    for centre, radius, turn in ((start, start_radius, np.pi), (end, end_radius, 0.0)):
        angle = direction + turn + arc
        ends.append(centre + radius * np.stack((np.cos(angle), np.sin(angle)), axis=1))
    return np.concatenate(ends)


def _leaf(root: Points, angle: float, length: float) -> Points:
    """An ear: broad at the root, pointed at the tip."""
    along = np.array((-0.1, 0.25, 0.65, 1.0, 0.70, 0.30, -0.1)) * length
    across = np.array((0.24, 0.40, 0.30, 0.0, -0.24, -0.36, -0.24)) * length
    return np.stack((along, across), axis=1) @ _axes(angle) + root


def _disc(centre: Points, radius: float) -> Points:
    return centre + radius * np.stack((np.cos(_CIRCLE), np.sin(_CIRCLE)), axis=1)


assert len(STATIONS) == SAMPLES
