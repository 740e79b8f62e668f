"""`Clip` and `Frame`: the one type that every reader gives and every consumer takes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""RGB, shape (H, W, 3), 0-255."""


class RLE(TypedDict):
    """A binary mask in COCO's compressed run-length encoding (pycocotools); `counts` is ASCII so that JSON holds it."""

    size: list[int]  # [height, width] in pixels
    counts: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is known about the animals of one frame; N animals, each identity at most once.

    Args:
        identities: Names of the animals, unique within the clip only.
        boxes_xyxy: Shape (N, 4), float32, pixels of the frame: left, top, right, bottom.
            Clipped to the frame, of positive area.
        behaviours: Raw label of each animal, None where none was given.
        visible: Shape (N,), bool; False where the animal is hidden and its box is a guess.
        masks: One mask per animal at frame size, or None where the source has no masks.
    """

    identities: tuple[str, ...]
    boxes_xyxy: NDArray[np.float32]
    behaviours: tuple[str | None, ...]
    visible: NDArray[np.bool_]
    masks: tuple[RLE, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.identities)
        if len(set(self.identities)) != count:
            raise ValueError(f"identities repeat within a frame: {self.identities}")
        if self.boxes_xyxy.shape != (count, 4):
            raise ValueError(f"boxes_xyxy has shape {self.boxes_xyxy.shape}, expected ({count}, 4)")
        if len(self.behaviours) != count or self.visible.shape != (count,):
            raise ValueError(f"behaviours and visible must have {count} entries, one per identity")
        if self.masks is not None and len(self.masks) != count:
            raise ValueError(f"{len(self.masks)} masks for {count} identities")

    def __len__(self) -> int:
        return len(self.identities)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a clip.

    Args:
        index: Number of the video frame, from 0.
        timestamp_s: Time since the clip's first frame, in seconds.
        image: RGB picture.
        annotation: The animals, or None where nobody labelled this frame (not the same as a frame without animals).
    """

    index: int
    timestamp_s: float
    image: Image
    annotation: Annotation | None


class FrameSource(Protocol):
    """Pictures in order. Every call of ``iter`` starts again at the first; only a few pictures are held in memory."""

    def __iter__(self) -> Iterator[Image]: ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A frame source that can tell cheaply whether its pictures have changed."""

    def fingerprint(self) -> str:
        """Return a hash that changes when the pictures do."""


@dataclass(frozen=True)
class Clip:
    """A contiguous piece of video with its annotation.

    Args:
        name: Unique within a data set, with ``/`` between parts: ``2019_11_05/000002``.
        day: The recording day, ``YYYY_MM_DD``; clips of one day are never split.
        fps: Frames per second.
        width: Pixels.
        height: Pixels.
        num_frames: How many pictures `source` yields.
        source: The pictures.
        annotations: Frame index -> animals; a missing index is an unlabelled frame.
    """

    name: str
    day: str
    fps: float
    width: int
    height: int
    num_frames: int
    source: FrameSource
    annotations: Mapping[int, Annotation] = field(default_factory=dict)

    def frames(self) -> Iterator[Frame]:
        """Decode the clip from its first frame to its last."""
        for index, image in enumerate(self.source):
            yield Frame(index, index / self.fps, image, self.annotations.get(index))
