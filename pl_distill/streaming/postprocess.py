"""From SAM 3's low-resolution masks to tracks in pixels of the frame.

Source: transformers, models/sam3_video/processing_sam3_video.py (`postprocess_outputs`). The masks are the same, bit
for bit, made one animal at a time: a float picture of frame size for each of twenty animals is 166 MB at 1080p. What
differs: boxes end at the right and lower edge of the last pixel, not at its number, and scores are the tracker's for
this frame instead of the detection's at birth.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """The animals of one frame, N of them, by rising id.

    Args:
        ids: One per animal, the same from frame to frame, and of nobody else before or after; where animals are
            recognised by their looks (`Appearance`), as far as these are told apart.
        boxes_xyxy: Shape (N, 4), float32, pixels of the frame: left, top, right, bottom; around the whole mask, also
            where another animal's covers it, or the mean of that and of the detection's (`fuse_boxes`).
        scores: Shape (N,), float32, 0-1: how sure the tracker is that it sees the animal in this frame; for a new
            animal the detector's score.
        masks: Shape (N, H, W), bool, without overlap: a pixel belongs to the animal with the higher score.
        renamed: Those of the ids that were another track's until now: it is the same animal, but was elsewhere.
    """

    ids: tuple[int, ...]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    masks: NDArray[np.bool_]
    renamed: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def nothing(cls, height: int, width: int) -> "Tracks":
        """Return the tracks of a frame without animals."""
        empty = np.zeros((0, height, width), bool)
        return cls((), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), empty)


def to_tracks(output: Any, height: int, width: int, hidden: Collection[int] = ()) -> Tracks:
    """Turn the model's output for one frame into tracks; animals without a pixel are left out.

    Args:
        output: A `Sam3VideoSegmentationOutput`.
        height: Of the frame, in pixels.
        width: Of the frame, in pixels.
        hidden: Ids of tracks that are not to be shown, beside those that the model suppresses.
    """
    ids, boxes, scores, masks = [], [], [], []
    for track in sorted(output.obj_id_to_mask.keys() - _suppressed(output) - set(hidden)):
        mask = at_frame_size(output.obj_id_to_mask[track], height, width)
        box = box_around(mask)
        if box is not None:
            ids.append(track)
            boxes.append(box)
            scores.append(float(output.obj_id_to_tracker_score.get(track, 0.0)))
            masks.append(mask)
    if not ids:
        return Tracks.nothing(height, width)
    separated = without_overlap(masks, scores)
    return Tracks(
        ids=tuple(ids),
        boxes_xyxy=np.array(boxes, np.float32),
        scores=np.array(scores, np.float32),
        masks=np.stack([mask.cpu().numpy() for mask in separated]),
    )


def at_frame_size(logits: Tensor, height: int, width: int) -> Tensor:
    """Resize one mask, logits (1, h, w), to (H, W) bool."""
    resized = F.interpolate(logits[None], size=(height, width), mode="bilinear", align_corners=False)
    return resized[0, 0] > 0


def box_around(mask: Tensor) -> Box | None:
    """Return left, top, right, bottom of a mask (H, W); None where it has no pixel."""
    columns, rows = mask.any(0).nonzero(), mask.any(1).nonzero()
    if len(rows) == 0:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1


def with_mean_boxes(tracks: Tracks, detected: Mapping[int | None, Tensor]) -> Tracks:
    """Pull boxes half the way to those of the detections of the same animals.

    Args:
        tracks: With boxes around their masks.
        detected: Id, None for who is not shown -> box of a detection, (4,): left, top, right, bottom in parts of the
            frame, which may reach beyond.
    """
    height, width = tracks.masks.shape[1:]
    boxes = tracks.boxes_xyxy.copy()
    for row, animal in enumerate(tracks.ids):
        if animal in detected:
            theirs = detected[animal].float().clamp(0, 1).cpu().numpy() * (width, height, width, height)
            boxes[row] = (boxes[row] + theirs) / 2
    return replace(tracks, boxes_xyxy=boxes)


def without_overlap(masks: Iterable[Tensor], scores: list[float]) -> list[Tensor]:
    """Give every pixel to the mask with the highest score, the first of equal ones.

    Args:
        masks: Each (H, W), bool.
        scores: One per mask.
    """
    separated = list(masks)
    taken = torch.zeros_like(separated[0])
    for index in sorted(range(len(scores)), key=lambda number: -scores[number]):
        separated[index] = separated[index] & ~taken
        taken |= separated[index]
    return separated


def _suppressed(output: Any) -> set[int]:
    return set(output.suppressed_obj_ids or ())
