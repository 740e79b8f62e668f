"""One small picture of each animal and day, beside the pool: what it looked like, for people.

JPEG of at most 96 pixels a side, about 2 kB: 0.7 MB for an animal and year. A picture is of a track, and shows the
animal whose that track is now: it follows merges, splits and their undoing as the record does.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from datamodules.clip import Image
from datamodules.files import atomic_path, file_name_of
from datamodules.images import encode_jpeg, read_image

FOLDER = "thumbnails"
_SIDE = 96
_QUALITY = 85
_NAME = re.compile(r"(\d{4}_\d\d_\d\d)(?:-track(\d+))?\.jpg")


class Thumbnails:
    """Keeps and gives the pictures.

    Args:
        pool: Folder of the pool.
        owners: The animal of each of its tracks; None gives every picture to the name under which it was kept.
    """

    def __init__(self, pool: str | Path, owners: Mapping[int, str] | None = None) -> None:
        self._folder = Path(pool) / FOLDER
        self._owners = owners
        self._kept: set[tuple[str, date]] = set()

    def offer(self, animal: str, time_s: float, crop: Image, track: int | None = None) -> bool:
        """Keep the first picture of an animal's day.

        Args:
            animal: Its name.
            time_s: Seconds since 1970 (UTC).
            crop: RGB (H, W, 3), uint8; may be empty, which is not kept.
            track: Number of its track in the pool; None outside of a pool.

        Returns:
            Whether it was kept.
        """
        day = datetime.fromtimestamp(time_s, UTC).date()
        folder = self._folder / file_name_of(animal)
        if (animal, day) in self._kept or min(crop.shape[:2]) < 2:
            return False
        self._kept.add((animal, day))
        if any(folder.glob(f"{day:%Y_%m_%d}*.jpg")):  # of an earlier run
            return False
        scale = min(1.0, _SIDE / max(crop.shape[:2]))
        size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
        small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        of_track = "" if track is None else f"-track{track}"
        with atomic_path(folder / f"{day:%Y_%m_%d}{of_track}.jpg") as temporary:
            temporary.write_bytes(encode_jpeg(np.asarray(small, np.uint8), _QUALITY))
        return True

    def days(self, animal: str) -> list[date]:
        """Days of which there is a picture, the first first."""
        return sorted(self._pictures.get(file_name_of(animal), {}))

    def read(self, animal: str, day: date) -> Image:
        """Give a picture, RGB."""
        return read_image(self._pictures[file_name_of(animal)][day])

    @cached_property
    def _pictures(self) -> dict[str, dict[date, Path]]:
        """The pictures by the folder name of whose they are, and by day; the first of several of a day."""
        found: dict[str, dict[date, Path]] = {}
        for path in sorted(self._folder.glob("*/*.jpg")):
            ours = _NAME.fullmatch(path.name)
            day = None if ours is None else _day(ours[1])
            if ours is None or day is None:  # of somebody else, such as the ._ files of a Mac
                continue
            track = ours[2]
            owner: str | None = path.parent.name
            if track is not None and self._owners is not None:
                animal = self._owners.get(int(track))
                owner = None if animal is None else file_name_of(animal)
            if owner is not None:
                found.setdefault(owner, {}).setdefault(day, path)
        return found


def _day(name: str) -> date | None:
    """Read a day as it stands in a name, such as 2026_03_01; None where the calendar has none of that name."""
    try:
        return date(*map(int, name.split("_")))
    except ValueError:
        return None
