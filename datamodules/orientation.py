"""How a decoded picture of a video is turned to stand as players show it.

Phones and many cameras store every picture as the sensor lies and tell beside it how to turn it: the display matrix of
ISO/IEC 14496-12, section 6.2.2, which FFmpeg hands on with each picture. Players, OpenCV and labelling tools turn the
picture, so that labels are on the turned one. Matrices of other than quarter turns count as the nearest of them.
"""

from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from datamodules.clip import Image


@dataclass(frozen=True)
class Orientation:
    """A way to turn a picture: first its rows become columns, then it is mirrored.

    Args:
        transposed: Whether rows become columns: width and height change places.
        upside_down: Whether the last row becomes the first.
        mirrored: Whether the last column becomes the first.
    """

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    def turn(self, image: Image) -> Image:
        """Return a picture (H, W, 3) as it is shown; the same one where nothing is to be turned."""
        if self == Orientation():
            return image
        turned = image.transpose(1, 0, 2) if self.transposed else image
        turned = turned[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]
        return np.ascontiguousarray(turned)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height as they are shown, of those that are stored."""
        return (height, width) if self.transposed else (width, height)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Read how a decoded picture is to be shown; as it is stored where nothing is told."""
    try:
        told: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV has no name for something that lies beside this picture, and then reads nothing of it
        return Orientation()
    if told is None:
        return Orientation()
    # what is stored at (x, y) is shown at (a x + c y, b x + d y), but for a shift
    values = np.frombuffer(told, np.int32, 9).astype(np.int64)
    (a, b), (c, d) = values[0:2], values[3:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, upside_down=bool(d < 0), mirrored=bool(a < 0))
    return Orientation(True, upside_down=bool(b < 0), mirrored=bool(c < 0))
