"""One drawn picture with everything that is known about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from datamodules.clip import Annotation, Image
from datamodules.masks import encode_mask

FEEDER_CODE, TOY_CODE = 254, 255
FURNITURE: Mapping[str, int] = {"feeder": FEEDER_CODE, "toy": TOY_CODE}
"""What besides animals has a mask, and its value in `PenFrame.instance_map`."""


@dataclass(frozen=True)
class PenFrame:
    """A picture of the pen; N animals are in it.

    Args:
        index: Number of the video frame, from 0.
        timestamp_s: Seconds since the clip's first frame.
        image: RGB picture.
        codes: Value of each animal in `instance_map`: its number in the herd plus 1.
        names: Names of the animals, the same in every clip of the pen.
        boxes_xyxy: Shape (N, 4), float32, pixels: around what is seen of the animal, or around
            its whole outline where it is hidden.
        behaviours: Raw label of each animal.
        visible: Shape (N,), bool; False where less than a tenth of the animal can be seen.
        instance_map: Shape (H, W), uint8: what each pixel shows, 0 is floor or wall.
    """

    index: int
    timestamp_s: float
    image: Image
    codes: tuple[int, ...]
    names: tuple[str, ...]
    boxes_xyxy: NDArray[np.float32]
    behaviours: tuple[str, ...]
    visible: NDArray[np.bool_]
    instance_map: NDArray[np.uint8]

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """What is seen of each animal, (N, H, W)."""
        masks: NDArray[np.bool_] = self.instance_map[None] == np.array(self.codes, np.uint8)[:, None, None]
        return masks

    @cached_property
    def furniture_masks(self) -> dict[str, NDArray[np.bool_]]:
        """What is seen of feeder and toy, (H, W) each; all False where nothing is."""
        return {name: self.instance_map == code for name, code in FURNITURE.items()}

    def annotation(self, *, masks: bool = True, identities: Mapping[str, str] | None = None) -> Annotation:
        """Give what a reader would give.

        Args:
            masks: Whether to encode the masks; costs about 0.1 ms an animal.
            identities: Other names of the animals.
        """
        names = self.names if identities is None else tuple(identities[name] for name in self.names)
        return Annotation(
            names,
            self.boxes_xyxy,
            self.behaviours,
            self.visible,
            tuple(map(encode_mask, self.masks)) if masks else None,
        )


def box_of(mask: NDArray[np.bool_], left: int = 0, top: int = 0) -> NDArray[np.float32] | None:
    """Give the box around the pixels of a mask whose corner lies at (left, top), or None for an empty one."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return None
    return np.array((left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1), np.float32)
