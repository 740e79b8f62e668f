"""Masks of tracks on disk, in the text layout of MOTS, and how well they cover those of animals or of another model.

Layout: Voigtlaender et al., "MOTS: Multi-Object Tracking and Segmentation", arXiv 1902.03604,
vision.rwth-aachen.de/page/mots: `frame id class height width rle`, one line per frame and track, frames from 1. Here
everything is of class 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment

from datamodules.clip import RLE, Annotation
from datamodules.errors import AnnotationError
from datamodules.masks import encode_mask

Masks = Mapping[int, Sequence[RLE]]
"""Frame index from 0 -> masks; a missing index is a frame without any."""

MATCH = 0.5
"""Least overlap of an animal with the mask that is given to it for the two to count as matched, as with boxes."""

_CLASS = 1


@dataclass(frozen=True)
class MaskOverlap:
    """How well the masks of some animals are covered; counts of clips add up.

    Args:
        total: Sum over animals and frames of the overlap (IoU, 0-1) with the one mask that is given to each; 0 for an
            animal that gets none.
        masks: Number of animals, counted per frame.
        matched_total: Sum over the animals whose overlap is at least `MATCH`.
        matched: Number of these.
    """

    total: float = 0.0
    masks: int = 0
    matched_total: float = 0.0
    matched: int = 0

    def __add__(self, other: "MaskOverlap") -> "MaskOverlap":
        return MaskOverlap(
            self.total + other.total,
            self.masks + other.masks,
            self.matched_total + other.matched_total,
            self.matched + other.matched,
        )

    @property
    def percentage(self) -> float | None:
        """The mean overlap, 0-100; None without a mask to cover."""
        return None if self.masks == 0 else round(100 * self.total / self.masks, 4)

    @property
    def matched_percentage(self) -> float | None:
        """The mean overlap of the matched animals alone, 0-100: how good a mask is where there is one."""
        return None if self.matched == 0 else round(100 * self.matched_total / self.matched, 4)


def write_masks(file: TextIO, frame: int, ids: Sequence[int], masks: NDArray[np.bool_]) -> None:
    """Append one frame (counted from 0) to an open text file; masks have shape (N, H, W)."""
    for identity, mask in zip(ids, masks, strict=True):
        encoded = encode_mask(mask)
        height, width = encoded["size"]
        file.write(f"{frame + 1} {identity} {_CLASS} {height} {width} {encoded['counts']}\n")


def read_masks(path: Path) -> dict[int, list[RLE]]:
    """Read a text file of masks, without their identities.

    Raises:
        AnnotationError: A line is not what the layout promises.
    """
    return {frame: list(masks.values()) for frame, masks in read_masks_by_track(path).items()}


def read_masks_by_track(path: Path) -> dict[int, dict[int, RLE]]:
    """Read a text file of masks: frame (from 0) -> track -> mask.

    Raises:
        AnnotationError: A line is not what the layout promises.
    """
    masks: dict[int, dict[int, RLE]] = {}
    for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), start=1):
        try:
            frame, track, _, height, width, counts = line.split(" ")
            masks.setdefault(int(frame) - 1, {})[int(track)] = {"size": [int(height), int(width)], "counts": counts}
        except ValueError:
            raise AnnotationError(
                f"{path}, line {number}",
                f"is {line[:60]!r}",
                "frame id class height width rle",
                "Write the file again.",
            ) from None
    return masks


def masks_of_truth(annotations: Mapping[int, Annotation], frames: int) -> dict[int, list[RLE]]:
    """Collect the masks of visible animals in the first `frames` frames; empty where the data have none."""
    return {
        index: [mask for mask, visible in zip(animals.masks, animals.visible, strict=True) if visible]
        for index, animals in annotations.items()
        if index < frames and animals.masks is not None
    }


def measure_overlap(reference: Masks, masks: Masks, frames: Iterable[int]) -> MaskOverlap:
    """Give each mask of `reference` at most one of `masks`, so that the sum of overlaps is largest, frame by frame.

    Empty masks are nobody's: a tracker leaves one where a surer animal took all of its pixels.
    """
    overlaps: list[float] = []
    count = 0
    for frame in frames:
        wanted, found = _shown(reference.get(frame, ())), _shown(masks.get(frame, ()))
        count += len(wanted)
        if wanted and found:
            iou = coco.iou(found, wanted, [0] * len(wanted))
            overlaps.extend(iou[linear_sum_assignment(iou, maximize=True)].tolist())
    matched = [overlap for overlap in overlaps if overlap >= MATCH]
    return MaskOverlap(sum(overlaps), count, sum(matched), len(matched))


def _shown(masks: Sequence[RLE]) -> list[dict[str, object]]:
    """Return those that have a pixel."""
    return [mask for mask in map(_for_coco, masks) if coco.area(mask) > 0]


def _for_coco(mask: RLE) -> dict[str, object]:
    return {"size": mask["size"], "counts": mask["counts"].encode("ascii")}
