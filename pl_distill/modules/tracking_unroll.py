"""One window of a clip, tracked as in a stream: prompted by masks, remembering its own, corrected by detections."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.errors import DataError
from datamodules.views import FrameTruth
from pl_distill.models.sam3_tracker import HIDDEN, FrameMemory, TrackerFeatures, TrackerOutput, prompt, remember, track


@dataclass(frozen=True)
class ObjectWindow:
    """N objects that are in the first frame of a window of T frames.

    Args:
        masks: (T, N, m, m), the covered part of each pixel; zeros where an object is hidden or gone.
        visible: (T, N), bool.
    """

    masks: Tensor
    visible: Tensor

    @classmethod
    def of(cls, frames: Sequence[FrameTruth], names: Sequence[str]) -> "ObjectWindow":
        """Follow some identities through the frames of a window.

        Raises:
            DataError: The data have boxes only.
        """
        drawn = [frame.masks for frame in frames if frame.masks is not None]
        if len(drawn) < len(frames):
            raise DataError(
                f"animal {names[0]}",
                "has no mask",
                "a mask for every labelled animal: a tracker is prompted by masks and learns masks",
                "Add masks to the data set, or train the detector only, for which boxes are enough.",
            )
        masks = drawn[0].new_zeros(len(frames), len(names), *drawn[0].shape[1:])
        visible = torch.zeros(len(frames), len(names), dtype=torch.bool, device=drawn[0].device)
        for time, (frame, of_frame) in enumerate(zip(frames, drawn, strict=True)):
            row = {name: number for number, name in enumerate(frame.identities)}
            for number, name in enumerate(names):
                if name in row:
                    masks[time, number] = of_frame[row[name]]
                    visible[time, number] = True
        return cls(masks, visible)


@dataclass(frozen=True)
class Sloppiness:
    """How a detector's mask differs from the truth, so that the tracker learns to be prompted by one.

    Args:
        shift: Largest shift in pixels of the mask.
        threshold: A pixel belongs to the object from a coverage of 0.5 on, give or take up to this much.
        blur: Part of masks that are averaged over 3 x 3 pixels first, which rounds corners and loses tails.
    """

    shift: int = 1
    threshold: float = 0.2
    blur: float = 0.5

    def __call__(self, masks: Tensor, chance: random.Random) -> Tensor:
        """Map N masks (N, m, m) of coverage to binary ones; an object never vanishes."""
        changed = []
        for mask in masks:
            rough = mask
            if chance.random() < self.blur:
                rough = F.avg_pool2d(rough[None, None], 3, stride=1, padding=1)[0, 0]
            rough = _shifted(rough, *(chance.randint(-self.shift, self.shift) for _ in range(2)))
            binary = (rough > 0.5 + chance.uniform(-self.threshold, self.threshold)).to(mask.dtype)
            changed.append(binary if binary.any() else (mask > 0).to(mask.dtype))
        return torch.stack(changed)


def _shifted(mask: Tensor, down: int, right: int) -> Tensor:
    """Move a mask (h, w); what leaves at one edge does not come back at the other."""
    return F.pad(mask, (right, -right, down, -down))


@dataclass(frozen=True)
class Step:
    """What the tracker said about one frame of a window.

    Args:
        frame: Its number in the window.
        output: The answer, to the prompt for frame 0.
    """

    frame: int
    output: TrackerOutput


def unroll(
    tracker: Any,
    features: TrackerFeatures,
    objects: ObjectWindow,
    times: Sequence[int],
    *,
    corrected: Sequence[bool],
    chance: random.Random,
    sloppiness: Sloppiness | None,
) -> list[Step]:
    """Follow objects through a window.

    Args:
        tracker: `transformers.Sam3TrackerVideoModel`.
        features: Of the window's T pictures.
        objects: The truth.
        times: Numbers of the T frames, rising.
        corrected: For each frame, whether a detection corrects the memory after the tracker has answered. The first is
            the prompt and counts as corrected.
        chance: Draws the sloppiness.
        sloppiness: How prompts and corrections differ from the truth; None gives the truth, rounded.

    Returns:
        One step per frame.
    """
    count = objects.masks.shape[1]
    steps: list[Step] = []
    memories: dict[int, FrameMemory] = {}

    def detected(frame: int) -> Tensor:
        masks = objects.masks[frame]
        return (masks >= 0.5).to(masks.dtype) if sloppiness is None else sloppiness(masks, chance)

    for frame, time in enumerate(times):
        seen = features.of(frame, count)
        if frame == 0:
            size = [tracker.image_size, tracker.image_size]
            large = F.interpolate(detected(0)[:, None], size=size, mode="bilinear", antialias=True)[:, 0]
            output = prompt(tracker, seen, large)
            logits = large * 20 - 10
        else:
            output = track(tracker, seen, memories, time)
            logits = torch.where(output.score[:, None, None] > 0, output.best_masks, HIDDEN)
        steps.append(Step(frame, output))
        correct = frame > 0 and corrected[frame]
        if correct:  # transformers puts the detection's 0 and 1 in the place of logits
            logits = torch.where(objects.visible[frame][:, None, None], detected(frame), logits)
        memories[time] = remember(
            tracker, seen, logits, output.pointer, conditioning=frame == 0 or correct, binary=frame == 0
        )
    return steps
