"""How a pig and a sheep are built: proportions of their parts, width of the trunk in each posture, seen from above."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]

POSTURES = ("standing", "lying", "on_side", "sitting")
"""Lying is on the belly, legs tucked in; `on_side` is flat on one flank, all legs stretched out to the other."""

SAMPLES = 33
STATIONS: Table = np.sin(np.linspace(-np.pi / 2, np.pi / 2, SAMPLES))
"""Where along a part its width is given: -1 is its rear end, 1 its front end; dense at the round ends."""


@dataclass(frozen=True)
class Species:
    """Proportions. Lengths are relative to the body length from snout to rump, widths to half the trunk's width.

    Args:
        half_width: Half the trunk's width, relative to the body length.
        trunk: Length of the trunk.
        head: Length of the head; it overlaps the trunk where trunk and head exceed 1.
        head_width: Half the head's width.
        neck: Half the neck's width.
        ear_length: Length of an ear.
        ear_angle: Direction of an ear against the head's axis, in radians; pi / 2 points sideways.
        tail: Length of the tail.
        leg_radius: Radius of a leg, relative to half the trunk's width.
        height: Height of the back when standing.
        trunk_widths: Shape (4 postures, 2 sides, SAMPLES): half-widths; on its side an animal's legs point to the
            first of the two sides.
        head_widths: Shape (SAMPLES,).
    """

    half_width: float
    trunk: float
    head: float
    head_width: float
    neck: float
    ear_length: float
    ear_angle: float
    tail: float
    leg_radius: float
    height: float
    trunk_widths: Table
    head_widths: Table


def _bump(centre: float, width: float) -> Table:
    return np.exp(-(((STATIONS - centre) / width) ** 2))


def _round(power: float) -> Table:
    return np.sqrt(np.maximum(0.0, 1 - np.abs(STATIONS) ** power))


def _taper(start: float, end_width: float) -> Table:
    """1 up to `start`, then smoothly down to `end_width` at the front end."""
    x = np.clip((STATIONS - start) / (1 - start), 0, 1)
    return 1 - (1 - end_width) * x * x * (3 - 2 * x)


def _pig() -> Species:
    standing = _round(5) * _taper(0.45, 0.62) * (0.93 + 0.09 * _bump(-0.6, 0.3) + 0.10 * _bump(0.42, 0.25))
    lying = _round(4) * _taper(0.45, 0.68) * (1.08 + 0.08 * _bump(-0.5, 0.35))
    belly = _round(4) * _taper(0.5, 0.75) * (1.10 + 0.22 * _bump(-0.15, 0.5))
    back = _round(4) * _taper(0.45, 0.70) * 1.08
    sitting = _round(4) * _taper(0.2, 0.72) * (0.98 + 0.34 * _bump(-0.55, 0.35))
    return Species(
        half_width=0.138, trunk=0.76, head=0.30, head_width=0.60, neck=0.60,
        ear_length=0.125, ear_angle=0.95, tail=0.10, leg_radius=0.24,
        height=0.50, head_widths=_round(7) * _taper(-0.35, 0.40),
        trunk_widths=np.array([(standing, standing), (lying, lying), (belly, back), (sitting, sitting)]),
    )  # fmt: skip


def _sheep() -> Species:
    wool = 0.03 * np.sin(np.arange(SAMPLES) * 2.3)  # locks on the outline
    standing = _round(3) * (1.0 + wool)
    lying = _round(3) * (1.10 + wool)
    belly, back = _round(3) * (1.22 + wool), _round(3) * (1.05 + wool)
    sitting = _round(3) * (1.0 + wool + 0.2 * _bump(-0.5, 0.4))
    return Species(
        half_width=0.205, trunk=0.80, head=0.26, head_width=0.36, neck=0.34,
        ear_length=0.10, ear_angle=1.45, tail=0.07, leg_radius=0.15,
        height=0.62, head_widths=_round(5) * _taper(-0.5, 0.55),
        trunk_widths=np.array([(standing, standing), (lying, lying), (belly, back), (sitting, sitting)]),
    )  # fmt: skip


SPECIES = {"pig": _pig(), "sheep": _sheep()}
