"""One small picture of each animal and day, beside the pool: what it looked like, for people.

JPEG of at most 96 pixels a side, about 2 kB: 0.7 MB for an animal and year.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import cv2
import numpy as np

from datamodules.clip import Image
from datamodules.files import atomic_path, file_name_of
from datamodules.images import encode_jpeg, read_image

FOLDER = "thumbnails"
_SIDE = 96
_QUALITY = 85


class Thumbnails:
    """Keeps and gives the pictures.

    Args:
        pool: Folder of the pool.
        former: Names under which an animal has pictures, too, from before it was merged; see `former_names`.
    """

    def __init__(self, pool: str | Path, former: Mapping[str, Sequence[str]] | None = None) -> None:
        self._folder = Path(pool) / FOLDER
        self._former = former or {}

    def offer(self, animal: str, time_s: float, crop: Image) -> bool:
        """Keep the first picture of an animal's day.

        Args:
            animal: Its name.
            time_s: Seconds since 1970 (UTC).
            crop: RGB (H, W, 3), uint8; may be empty, which is not kept.

        Returns:
            Whether it was kept.
        """
        path = self._path(animal, datetime.fromtimestamp(time_s, UTC).date())
        if path.exists() or min(crop.shape[:2]) < 2:
            return False
        scale = min(1.0, _SIDE / max(crop.shape[:2]))
        size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
        small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        with atomic_path(path) as temporary:
            temporary.write_bytes(encode_jpeg(np.asarray(small, np.uint8), _QUALITY))
        return True

    def days(self, animal: str) -> list[date]:
        """Days of which there is a picture, the first first."""
        paths = [path for name in self._names(animal) for path in self._path(name, date.min).parent.glob("*.jpg")]
        return sorted({date(*map(int, path.stem.split("_"))) for path in paths})

    def read(self, animal: str, day: date) -> Image:
        """Give a picture, RGB."""
        paths = [self._path(name, day) for name in self._names(animal)]
        return read_image(next((path for path in paths if path.exists()), paths[0]))

    def _names(self, animal: str) -> list[str]:
        return [animal, *self._former.get(animal, ())]

    def _path(self, animal: str, day: date) -> Path:
        return self._folder / file_name_of(animal) / f"{day:%Y_%m_%d}.jpg"
