"""Single pictures to and from bytes, and a folder of pictures as a frame source.

OpenCV decodes; it fills the rest of a truncated JPEG with grey and only warns, so the end is checked here.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clip import Image
from datamodules.errors import ClipError

_SENSOR_BITS = 14  # more than those of a camera's sensor are used only by pictures that fill all 16


def encode_jpeg(image: Image, quality: int) -> bytes:
    """Encode an RGB picture (H, W, 3) as JPEG with libjpeg's `quality`, 1 to 100; equal pictures, equal bytes."""
    encoded, buffer = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise ValueError(f"a picture of shape {image.shape} cannot be encoded as JPEG")
    return buffer.tobytes()


def decode_image(data: bytes) -> Image:
    """Decode a JPEG or PNG to RGB (H, W, 3), turned as its EXIF orientation says: so labelling tools show it, too.

    Of 16 bits the upper eight are taken.

    Raises:
        ValueError: The bytes are no picture, end too early, or are of 16 bits whose upper ones are not used.
    """
    # Neither marker can occur inside compressed data, where every 0xFF is followed by 0x00 or a restart marker.
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise ValueError("the JPEG ends before its last line")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if pixels is None:
        raise ValueError("the bytes are no picture that can be decoded")
    if pixels.dtype != np.uint8:
        pixels = _eight_bits(pixels)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Take the upper half of 16 bits; a sensor's 10, 12 or 14 in the lower ones would become a black picture."""
    if pixels.dtype != np.uint16:
        raise ValueError(f"its pixels are {pixels.dtype}: convert it to 8 bits")
    used = int(pixels.max()).bit_length()
    if 0 < used <= _SENSOR_BITS:
        raise ValueError(f"it is a 16-bit picture that uses {used} bits: convert it to 8 bits")
    return (pixels >> 8).astype(np.uint8)


@dataclass(frozen=True)
class ImageFiles:
    """Picture files in the order given; one is held at a time. A `datamodules.clip.FrameSource`.

    Args:
        paths: JPEG or PNG files.

    Raises:
        ClipError: While iterating: a file is missing or cannot be decoded.
    """

    paths: tuple[Path, ...]

    def __iter__(self) -> Iterator[Image]:
        for path in self.paths:
            yield read_image(path)

    def fingerprint(self) -> str:
        """Return a hash of every file's name and bytes: equal pictures in equal order, equal fingerprint."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def read_image(path: Path) -> Image:
    """Read one picture file as RGB (H, W, 3).

    Raises:
        ClipError: The file is missing or cannot be decoded.
    """
    try:
        return decode_image(path.read_bytes())
    except FileNotFoundError as error:
        raise ClipError(
            path, "is not there", "a picture", "Copy the missing picture, or the whole folder, again."
        ) from error
    except ValueError as error:
        raise ClipError(
            path, f"cannot be decoded ({error})", "a whole JPEG or PNG of 8 bits", "Copy or convert this picture again."
        ) from error
