"""The crops of one drawn pen on disk: whole pictures with the mask beside them, whose they are and how they stand."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from datamodules.crops import crop_layers
from datamodules.edinburgh_output import BEHAVIOURS
from datamodules.files import atomic_path
from datamodules.lies import LIE, lies_of
from datamodules.pen import PenRenderer, Pose, load_pen_config, simulate
from datamodules.pen.seeds import generator
from datamodules.pen_training import DrawnPen

MIN_PIXELS = 64
"""Animals of which less is seen are left out."""

CROPS_VERSION = 2
"""Raise it when the same plan cuts something else."""

POSE = (
    "facing_x",
    "facing_y",
    "head_yaw",
    "head_low",
    "bend",
    "stride",
    "lift",
    "standing",
    "lying",
    "on_side",
    "sitting",
)
"""What can be seen of a body in a crop: direction of the trunk there as a vector of length 1 (x to the right, y down),
and of `datamodules.pen.state.Pose` angle and lowness of the head, curvature (1/m), stride, lift (m) and posture."""


def crops_file(folder: Path, pen: DrawnPen) -> Path:
    """Return where the crops of a pen lie."""
    return folder / f"pen-{pen.seed:06d}.safetensors"


def draw_crops(path: Path, pen: DrawnPen, frames: int, seconds_apart: float, size: int) -> None:
    """Draw a pen on two days and cut its animals out.

    Args:
        path: File to write.
        pen: What to draw.
        frames: Pictures, half of them of each day.
        seconds_apart: Between two of them.
        size: Side of a crop in pixels.
    """
    config = load_pen_config(pen.domain)
    if pen.num_animals is not None:
        config = replace(config, num_animals=pen.num_animals)
    cv2.setNumThreads(1)
    every = max(1, round(seconds_apart * config.fps))
    moments = (frames // 2 - 1) * every + 1 if frames > 1 else 0
    layers: list[NDArray[np.uint8]] = []
    poses: list[tuple[float, ...]] = []
    animals: list[int] = []
    behaviours: list[int] = []
    days: list[int] = []
    rng = generator(pen.seed, "crops")
    for day, clip in enumerate(("a", "b")):
        renderer = PenRenderer(config, pen.seed, clip, clip)
        for state in islice(simulate(config, pen.seed, moments, clip), 0, None, every):
            frame = renderer.render(state)
            masks = frame.masks
            seen = [n for n in range(len(frame.codes)) if frame.visible[n] and masks[n].sum() >= MIN_PIXELS]
            if not seen:
                continue
            margin = float(rng.uniform(0.05, 0.15))
            boxes = frame.boxes_xyxy[seen]
            layers.append(crop_layers(frame.image, boxes, masks[seen], margin, size, align=True))
            angles = lies_of(boxes, masks[seen])[:, LIE.index("angle")]
            poses += [pose_of(state.poses[frame.codes[n] - 1], angle) for n, angle in zip(seen, angles, strict=True)]
            animals += [frame.codes[n] for n in seen]
            days += [day] * len(seen)
            behaviours += [BEHAVIOURS.index(frame.behaviours[n]) for n in seen]
    content: dict[str, NDArray[Any]] = {
        "layers": np.concatenate(layers) if layers else np.zeros((0, size, size, 4), np.uint8),
        "poses": np.array(poses, np.float32).reshape(-1, len(POSE)),
        "animals": np.array(animals, np.int16),
        "behaviours": np.array(behaviours, np.int16),
        "days": np.array(days, np.int16),
    }
    with atomic_path(path) as temporary:
        save_file(content, temporary)


def pose_of(pose: Pose, angle: float) -> tuple[float, ...]:
    """Give the values of `POSE` in a crop that was turned back by `angle` radians."""
    facing = pose.heading - angle
    head = (pose.head_yaw, pose.head_low, pose.bend)
    return (float(np.cos(facing)), float(np.sin(facing)), *head, pose.stride, pose.lift_m, *pose.posture)
