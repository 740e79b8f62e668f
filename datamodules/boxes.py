"""Boxes from annotation files: from left, top, width, height to what `datamodules.clip.Annotation` holds."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.errors import AnnotationError

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

_MOST, _FEW = 0.1, 5
"""Labels of another picture: so large a part of a clip's boxes lies mostly outside, and not just so few of them. An
animal that leaves the picture may have a box beyond its edge; of labels of a double size three in four lie there."""

logger = logging.getLogger(__name__)


def clip_box(left: float, top: float, box_width: float, box_height: float, *, width: int, height: int) -> Box | None:
    """Cut a box of positive size at the picture's edges; None where nothing of it is inside the picture.

    Args:
        left: Pixels from the picture's left edge, may be negative.
        top: Pixels from the picture's top edge, may be negative.
        box_width: Pixels, positive.
        box_height: Pixels, positive.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
    """
    box = (max(left, 0.0), max(top, 0.0), min(left + box_width, float(width)), min(top + box_height, float(height)))
    stored = np.array(box, np.float32)  # as annotations hold it: of a sliver nothing may be left
    return box if stored[2] > stored[0] and stored[3] > stored[1] else None


@dataclass
class BoxFitter:
    """Cuts the boxes of one clip at the picture's edges, and knows in the end whether they are of such a picture.

    Args:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
    """

    width: int
    height: int
    _boxes: int = 0
    _outside: int = 0
    _mostly: int = 0
    _right: float = 0.0
    _bottom: float = 0.0

    def cut(self, left: float, top: float, box_width: float, box_height: float) -> Box | None:
        """Do as `clip_box`, and count."""
        box = clip_box(left, top, box_width, box_height, width=self.width, height=self.height)
        self._boxes += 1
        self._right, self._bottom = max(self._right, left + box_width), max(self._bottom, top + box_height)
        if box is None:
            self._outside += 1
        elif (box[2] - box[0]) * (box[3] - box[1]) < box_width * box_height / 2:
            self._mostly += 1
        return box

    def check(self, path: Path) -> None:
        """Warn of boxes that were left out.

        Args:
            path: The file of labels that all of them came from.

        Raises:
            AnnotationError: Too many lie outside, at least for the most part.
        """
        away = self._outside + self._mostly
        if away >= _FEW and away > _MOST * self._boxes:
            raise AnnotationError(
                path,
                f"has {away} of {self._boxes} boxes for the most part outside of the picture: they reach "
                f"x = {self._right:g} and y = {self._bottom:g}, and it is {self.width}x{self.height}",
                "boxes of these pictures",
                "Put the pictures or video that were labelled beside this file, of the same size and turned the same "
                "way; if the boxes are meant to lie there, cut them at the edges.",
            )
        if self._outside:
            logger.warning(
                "%s: %d of %d boxes are outside of the picture and left out", path, self._outside, self._boxes
            )
