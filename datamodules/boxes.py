"""Boxes from annotation files: from left, top, width, height to what `datamodules.clip.Annotation` holds."""

import numpy as np

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


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
