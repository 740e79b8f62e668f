"""The crops of one drawn pen on disk: whole pictures with the mask beside them, and whose they are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from datamodules.crops import crop_layers
from datamodules.edinburgh_output import BEHAVIOURS
from datamodules.files import atomic_path
from datamodules.pen import load_pen_config, pen_frames
from datamodules.pen.seeds import generator
from datamodules.pen_training import DrawnPen

MIN_PIXELS = 64
"""Animals of which less is seen are left out."""

CROPS_VERSION = 1
"""Raise it when the same plan cuts something else."""


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
    layers: list[NDArray[np.uint8]] = []
    animals: list[int] = []
    behaviours: list[int] = []
    days: list[int] = []
    rng = generator(pen.seed, "crops")
    for day, clip in enumerate(("a", "b")):
        for frame in pen_frames(config, seed=pen.seed, frames=frames // 2, every=every, clip=clip, day=clip):
            masks = frame.masks
            seen = [n for n in range(len(frame.codes)) if frame.visible[n] and masks[n].sum() >= MIN_PIXELS]
            if not seen:
                continue
            margin = float(rng.uniform(0.05, 0.15))
            layers.append(crop_layers(frame.image, frame.boxes_xyxy[seen], masks[seen], margin, size, align=True))
            animals += [frame.codes[n] for n in seen]
            days += [day] * len(seen)
            behaviours += [BEHAVIOURS.index(frame.behaviours[n]) for n in seen]
    content: dict[str, NDArray[Any]] = {
        "layers": np.concatenate(layers) if layers else np.zeros((0, size, size, 4), np.uint8),
        "animals": np.array(animals, np.int16),
        "behaviours": np.array(behaviours, np.int16),
        "days": np.array(days, np.int16),
    }
    with atomic_path(path) as temporary:
        save_file(content, temporary)
