"""What a drawn pen looks like: camera, floor, light and herd, read from a recipe of a few lines.

The default is the pen of the Edinburgh data set (homepages.inf.ed.ac.uk/rbf/PIGDATA): 5.8 m x 1.9 m, eight pigs, six
frames per second. Ours is seen from 3.5 m instead of 2.5 m, so that the whole floor fits into one picture.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from datamodules.errors import UserError
from datamodules.recipes import shipped_recipes

Floor = Literal["part_slatted", "slatted"]
Furniture = Literal["trough", "hopper"]
Coat = Literal["pink", "black", "red", "wool"]
Species = Literal["pig", "sheep"]

DRAWING_VERSION = 1
"""Goes into every clip's hash: raise it when the same configuration and seed draw something else."""


@dataclass(frozen=True, slots=True)
class PenConfig:
    """One domain of the drawn pen.

    x runs along the pen, y across it (down in the picture), z up; the origin is the floor's centre.

    Args:
        domain: Name of the domain, stored beside each clip.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        fps: Frames per second of the video.
        label_every: Every how many frames one is labelled: 1 labels all, 3 is the rhythm of the Edinburgh data set.
        crf: Constant rate factor of H.264, 0 (lossless) to 51.
        camera_height_m: Height of the lens over the floor, in metres.
        camera_tilt_deg: Angle between the optical axis and the vertical, towards the wall with the feeder.
        camera_aim_x_m: Where the optical axis meets the floor, in metres along the pen from its centre.
        camera_aim_y_m: The same across the pen.
        view_width_m: Metres of floor that the picture shows from left to right at that point.
        pen_length_m: Inner length of the pen in metres.
        pen_width_m: Inner width of the pen in metres.
        wall_height_m: Height of the walls in metres.
        floor: `part_slatted` is concrete with slats at the right end, `slatted` is plastic slats everywhere.
        furniture: `trough` is one long steel trough, `hopper` a round one; both stand at the middle of the lower wall.
        straw_per_m2: Stalks of straw per square metre of floor.
        brightness: Factor on the light, 1 is day.
        warmth: Colour of the light: 0 is neutral, positive is orange, negative is blue; -1 to 1.
        noise: Standard deviation of the sensor's noise in grey levels of 255.
        num_animals: Number of animals; 0 draws an empty pen.
        species: Shape of the animals.
        coat: Family of the coats: all animals of a pen share it, their marks differ.
        body_length_m: Mean length from snout to rump in metres.
    """

    domain: str = "day"
    width: int = 640
    height: int = 360
    fps: float = 6.0
    label_every: int = 1
    crf: int = 23
    camera_height_m: float = 3.5
    camera_tilt_deg: float = 0.0
    camera_aim_x_m: float = 0.0
    camera_aim_y_m: float = 0.0
    view_width_m: float = 6.4
    pen_length_m: float = 5.8
    pen_width_m: float = 1.9
    wall_height_m: float = 0.7
    floor: Floor = "part_slatted"
    furniture: Furniture = "trough"
    straw_per_m2: float = 70.0
    brightness: float = 1.0
    warmth: float = 0.1
    noise: float = 2.0
    num_animals: int = 8
    species: Species = "pig"
    coat: Coat = "pink"
    body_length_m: float = 1.12

    def __post_init__(self) -> None:
        for field in fields(self):
            self._check_type(field.name, field.type)
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise self._error(name, f"between {low:g} and {high:g}", "Choose a value in this range.")
        if self.width % 2 or self.height % 2:
            raise self._error("width", "an even width and an even height", "H.264 with 4:2:0 colour needs even sizes.")

    @property
    def sha256(self) -> str:
        """Hash over every value and the version of the drawing."""
        content = {"drawing_version": DRAWING_VERSION, **asdict(self)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _check_type(self, name: str, kind: Any) -> None:
        value = getattr(self, name)
        if choices := get_args(kind):
            if value not in choices:
                raise self._error(name, "one of " + ", ".join(choices), "Correct the spelling.")
        elif kind is float:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self._error(name, "a number", "Write it without quotes.")
            object.__setattr__(self, name, float(value))  # 1 and 1.0 are one recipe and have one hash
        elif isinstance(value, bool) or not isinstance(value, kind):
            raise self._error(name, {int: "a whole number", str: "a text"}[kind], "Correct the value.")

    def _error(self, name: str, expected: str, fix: str) -> UserError:
        return UserError(f"pen '{self.domain}', key '{name}'", f"is {getattr(self, name)!r}", expected, fix)


_RANGES: Mapping[str, tuple[float, float]] = {
    "width": (64, 4096),
    "height": (64, 4096),
    "fps": (1.0, 60.0),
    "label_every": (1, 1000),
    "crf": (0, 51),
    "camera_height_m": (1.6, 10.0),
    "camera_tilt_deg": (-45.0, 45.0),
    "camera_aim_x_m": (-10.0, 10.0),
    "camera_aim_y_m": (-10.0, 10.0),
    "view_width_m": (1.0, 30.0),
    "pen_length_m": (3.0, 20.0),
    "pen_width_m": (1.6, 10.0),
    "wall_height_m": (0.1, 1.2),
    "straw_per_m2": (0.0, 3000.0),
    "brightness": (0.05, 2.0),
    "warmth": (-1.0, 1.0),
    "noise": (0.0, 20.0),
    "num_animals": (0, 40),
    "body_length_m": (0.4, 1.6),
}


def load_pen_config(name_or_path: str | Path) -> PenConfig:
    """Read a domain by its name (``day``) or a YAML file by its path; what the file leaves out keeps its default.

    Raises:
        UserError: There is no such domain or file, the file is not a YAML mapping, a key is unknown or a value is
            impossible.
    """
    data, where = _read_recipe(name_or_path)
    try:
        content = yaml.safe_load(data) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        raise UserError(where, f"is not YAML ({error})", "keys and values", "Correct the file.") from error
    if not isinstance(content, dict):
        raise UserError(where, f"holds a {type(content).__name__}", "keys and values", "Correct the file.")
    known = [field.name for field in fields(PenConfig)]
    for key in content:
        if key not in known:
            raise UserError(
                where, f"has the unknown key '{key}'", "one of " + ", ".join(known), "Correct or remove it."
            )
    return PenConfig(**content)


def _read_recipe(name_or_path: str | Path) -> tuple[bytes, str]:
    """Return the bytes of a recipe and how to call it in a message."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(path, "does not exist", "a YAML file", "Give the path of a recipe or the name of a domain.")
        return path.read_bytes(), str(path)
    recipes = shipped_recipes("pen")
    if str(name_or_path) not in recipes:
        raise UserError(
            f"pen '{name_or_path}'",
            "is not a shipped domain",
            "one of " + ", ".join(recipes),
            "Or give a path that ends in .yaml.",
        )
    return recipes[str(name_or_path)].read_bytes(), f"configs/pen/{name_or_path}.yaml"
