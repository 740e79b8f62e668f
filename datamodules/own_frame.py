"""What an animal's own frame tells: where its head is, how it moves along its body, and where others are from there.

A box does not know front from rear. Here the axis of the mask gets a direction: towards the slimmer end and the way the
animal goes, by a vote over the frames around. An aligned crop has lost both, and all that is beyond the crop.
"""

import numpy as np
from numpy.typing import NDArray

from datamodules.lies import LIE

OWN_FRAME = (
    "facing_x",
    "facing_y",
    "head_x",
    "head_y",
    "log_length",
    "slenderness",
    "certainty",
    "ahead_speed",
    "side_speed",
    "turn",
    *(f"{point}_{value}" for point in ("head", "neck") for value in ("distance", "ahead", "beside", "facing")),
)
"""Names of the values: direction of the animal, a vector of length 1 (x to the right, y down); the end of its axis
there and its length, relative to the frame; width over length; how clear the direction is, 0-1; speed along and to the
right of it in body lengths per second; turning in radians per second, clockwise. Then of the animal whose head is
nearest to the own head, and of the one whose neck is: distance, how far ahead and to the right, in own body lengths,
and the cosine between the directions of the two."""

_GOING = 0.3
"""What a body length per second forwards counts against a slimness of 1; at 1 rooting animals were turned round."""
_NECK = 0.5  # of half the length, from the middle towards the head
_FARTHEST = 2.0  # body lengths
Floats = NDArray[np.float64]


def own_frame_of(
    frame: NDArray[np.int32],
    animal: NDArray[np.int32],
    lies: NDArray[np.float32],
    *,
    fps: float,
    width: int,
    height: int,
    reach: int,
) -> NDArray[np.float32]:
    """Describe M animals as `datamodules.motion.motion_of` does.

    Args:
        frame: Number of the video frame, (M,), by animal and then by frame.
        animal: Number of the animal, (M,).
        lies: Shape (M, len(LIE)).
        fps: Frames per second.
        width: Of a frame in pixels.
        height: Of a frame in pixels.
        reach: Observations to either side that vote for a direction.

    Returns:
        Shape (M, len(OWN_FRAME)), float32, all of the order of 1.
    """
    out = np.zeros((len(frame), len(OWN_FRAME)), np.float32)
    if not len(frame):
        return out
    column = {name: lies[:, number].astype(np.float64) for number, name in enumerate(LIE)}
    middle, length = np.stack([column["x"], column["y"]], 1), np.maximum(column["length"], 1.0)
    facing = np.stack([np.cos(column["angle"]), np.sin(column["angle"])], 1)
    starts = np.flatnonzero(np.r_[True, animal[1:] != animal[:-1]])
    for first, last in zip(starts, np.r_[starts[1:], len(frame)].astype(int), strict=True):
        rows = np.arange(first, last)
        before, after = np.maximum(rows - 1, first), np.minimum(rows + 1, last - 1)
        seconds = np.maximum((frame[after] - frame[before]) / fps, 1e-6)[:, None]
        velocity = np.where((after > before)[:, None], middle[after] - middle[before], 0.0) / seconds
        velocity /= length[rows, None]
        steady = _steady(facing[rows])
        slim = column["slimness"][rows] * (steady * facing[rows]).sum(1)
        votes = np.r_[0.0, np.cumsum(slim + _GOING * (velocity * steady).sum(1))]
        vote = votes[np.minimum(rows - first + reach, last - first - 1) + 1]
        vote = vote - votes[np.maximum(rows - first - reach, 0)]
        facing[rows] = np.where(vote < 0, -1.0, 1.0)[:, None] * steady
        was, will = steady[before - first], steady[after - first]
        turned = np.arctan2(was[:, 0] * will[:, 1] - was[:, 1] * will[:, 0], (was * will).sum(1))
        out[rows, 6] = np.minimum(np.abs(vote), 1)
        out[rows, 7:9] = np.clip(_seen_from(facing[rows], velocity), -4, 4)
        out[rows, 9] = np.clip(turned / seconds[:, 0], -4, 4)
    half = facing * length[:, None] / 2
    head, neck = middle + half, middle + _NECK * half
    out[:, 0:2] = facing
    out[:, 2:4] = 2 * head / (width, height) - 1
    out[:, 4] = np.log(length / width) + 2
    out[:, 5] = column["width"] / length
    out[:, 10:14] = _nearest(frame, head, head, facing, length)
    out[:, 14:18] = _nearest(frame, head, neck, facing, length)
    return out


def _steady(facing: Floats) -> Floats:
    """Turn some of the directions (n, 2) round, so that none is against the one before."""
    same = np.where((facing[1:] * facing[:-1]).sum(1) < 0, -1.0, 1.0)
    return facing * np.cumprod(np.r_[1.0, same])[:, None]


def _seen_from(facing: Floats, vectors: Floats) -> Floats:
    """Give vectors (n, 2) as ahead and to the right of directions (n, 2)."""
    ahead = (facing * vectors).sum(1)
    return np.stack([ahead, facing[:, 0] * vectors[:, 1] - facing[:, 1] * vectors[:, 0]], 1)


def _nearest(frame: NDArray[np.int32], own: Floats, others: Floats, facing: Floats, length: Floats) -> Floats:
    """Find the other of the same frame whose point is nearest to the own one, (M, 4); far away where there is none."""
    out = np.tile((_FARTHEST, 0.0, 0.0, 0.0), (len(frame), 1))
    order = np.argsort(frame, kind="stable")
    borders = np.flatnonzero(np.r_[True, np.diff(frame[order]) > 0])
    for first, last in zip(borders, np.r_[borders[1:], len(order)].astype(int), strict=True):
        rows = order[first:last]
        if len(rows) < 2:
            continue
        away = np.linalg.norm(others[rows][None] - own[rows][:, None], axis=-1)
        np.fill_diagonal(away, np.inf)
        chosen = rows[away.argmin(1)]
        distance = away.min(1) / length[rows]
        seen = _seen_from(facing[rows], others[chosen] - own[rows]) / length[rows, None]
        shrink = np.minimum(1.0, _FARTHEST / np.maximum(distance, 1e-6))
        out[rows, 0] = distance * shrink
        out[rows, 1:3] = seen * shrink[:, None]
        out[rows, 3] = (facing[rows] * facing[chosen]).sum(1)
    return out
