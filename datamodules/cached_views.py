"""Which views of a training frame the teacher sees: geometric augmentation that keeps its targets right.

A mirrored or cropped map is not the map of the mirrored or cropped picture: a trunk has position embeddings, and looks
at its surroundings. So the picture is changed before the teacher sees it, in `count` ways that a seed decides, and the
student is shown the same view.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from datamodules.errors import CacheError, UserError
from datamodules.splits import Part
from datamodules.views import View


@dataclass(frozen=True)
class CachedViews:
    """The views of each training frame; frames of other splits are seen whole and once.

    Args:
        count: Views per frame, the whole picture among them; each costs a forward pass and a map.
        seed: Of the views; every frame has views of its own.
        zoom: The smallest side of a view as a part of the picture's, 0 to 1.
        mirror_x: Whether half of the views are mirrored, left to right.
        mirror_y: Whether half of them are upside down, as for a camera that looks straight down.

    Raises:
        UserError: A number is out of its range.
    """

    count: int = 1
    seed: int = 0
    zoom: float = 0.6
    mirror_x: bool = True
    mirror_y: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError("views.count", f"is {self.count}", "at least 1", "Give 1 for the whole picture alone.")
        if not 0 < self.zoom <= 1:
            raise UserError("views.zoom", f"is {self.zoom}", "above 0, at most 1", "Give 1 for views that are whole.")

    def of_part(self, part: Part) -> int:
        """Return how many maps each frame of a split has."""
        return self.count if part == "train" else 1

    def view(self, key: str, number: int) -> View:
        """Return a frame's view of a number; number 0 is the whole picture."""
        if number == 0:
            return View()
        digest = hashlib.sha256(f"{self.seed} {number} {key}".encode()).digest()  # `hash` differs between processes
        width, height, left, top, mirror_x, mirror_y = np.random.default_rng(list(digest)).random(6).tolist()
        width, height = (self.zoom + (1 - self.zoom) * side for side in (width, height))
        return View(
            (1 - width) * left,
            (1 - height) * top,
            width,
            height,
            self.mirror_x and mirror_x < 0.5,
            self.mirror_y and mirror_y < 0.5,
        )

    def describe(self) -> dict[str, Any]:
        """Return the values that a cache's manifest stores and compares."""
        return asdict(self) if self.count > 1 else {"count": 1}

    @classmethod
    def from_description(cls, description: Mapping[str, Any], where: str) -> "CachedViews":
        """Undo `describe`.

        Raises:
            CacheError: The description, found in `where`, is not one of views.
        """
        try:
            return cls(**description)
        except (TypeError, UserError) as error:
            raise CacheError(
                where, f"has the views {dict(description)}", "count, seed, zoom and mirrors",
                "Run `pl-distill predict` again with this version.",
            ) from error  # fmt: skip
