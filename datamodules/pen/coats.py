"""The skin of one animal: a picture wrapped around trunk and head, with marks that nobody else has.

All animals of a pen share one family of hues; what tells them apart are the places of their marks.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.pen.camera import Points
from datamodules.pen.config import Coat
from datamodules.pen.seeds import generator

Colour = tuple[float, float, float]
"""RGB, 0-255."""

Skin = NDArray[np.float32]
"""RGB, shape (AROUND, ALONG, 3): rows go once around the part, the back in the middle, columns from rear to front."""

ALONG, AROUND = 144, 192
MARK_MAP = (6, 12)
_SEEN = 36  # rows to either side of the back's middle that a camera overhead sees well


@dataclass(frozen=True)
class Family:
    """What the coats of a pen have in common.

    Args:
        base: Colour of the back.
        mark: Colour of the marks.
        skin: Colour of snout and inner ear.
        belly: Factor on the colour below.
        head: Factor on the colour of the head.
        contrast: How much of `mark` a mark shows.
        bristle: Strength of the hair's grain.
        spread: How far animals differ in lightness.
    """

    base: Colour
    mark: Colour
    skin: Colour
    belly: float
    head: float
    contrast: float
    bristle: float
    spread: float


FAMILIES: dict[Coat, Family] = {
    "pink": Family((222, 170, 152), (128, 88, 76), (226, 142, 134), 0.94, 1.02, 0.72, 0.035, 0.04),
    "black": Family((62, 58, 60), (128, 116, 112), (104, 84, 84), 0.90, 1.00, 0.62, 0.10, 0.05),
    "red": Family((158, 94, 62), (92, 52, 36), (172, 110, 98), 0.90, 0.97, 0.70, 0.07, 0.06),
    "wool": Family((214, 206, 188), (168, 156, 134), (96, 84, 78), 0.92, 0.34, 0.60, 0.10, 0.04),
}


@dataclass(frozen=True)
class CoatOf:
    """One animal's skin.

    Args:
        trunk: Wrapped around the trunk.
        head: Wrapped around the head.
        limb: Colour of the legs.
        ear: Colour of the outer ear.
        inner: Colour of the inner ear and the snout.
        tail: Colour of the tail.
        eye: Colour of the open eye.
    """

    trunk: Skin
    head: Skin
    limb: Colour
    ear: Colour
    inner: Colour
    tail: Colour
    eye: Colour


@lru_cache(maxsize=32)  # a pen that is drawn day after day keeps its coats; callers make new arrays of them
def make_coat(family_name: Coat, seed: int, number: int) -> CoatOf:
    """Draw the skin of animal `number` of the pen that `seed` names."""
    family, rng = FAMILIES[family_name], generator(seed, "coat", number)
    base = np.array(family.base) * rng.uniform(1 - family.spread, 1 + family.spread) * rng.uniform(0.985, 1.015, 3)
    mark = np.array(family.mark)
    trunk = _plain(base, family, rng)
    _add_marks(trunk, mark, family.contrast, rng, count=int(rng.integers(3, 7)), size=(0.06, 0.17))
    _add_dirt(trunk, rng)
    head = _plain(base * family.head, family, rng)
    _add_marks(head, mark * family.head, family.contrast, rng, count=int(rng.integers(1, 4)), size=(0.08, 0.18))
    ear = base * family.head * 0.88
    if rng.random() < 0.4:  # one animal in three or so has dark ears
        ear = 0.35 * ear + 0.65 * mark * family.head
    return CoatOf(
        trunk,
        head,
        _colour(base * family.head * 0.86),
        _colour(ear),
        family.skin,
        _colour(base * 0.86),
        (26.0, 20.0, 20.0),
    )


def mark_map(family_name: Coat, seed: int, number: int) -> NDArray[np.float32]:
    """Say where the marks of animal `number` lie on its back: what tells it from the others of its pen.

    Returns:
        Shape `MARK_MAP`, float32: rows from flank to flank as seen from above with the head to the right, columns from
        rear to front; the cover by marks less its mean, about -1 to 3.
    """
    family, skin = FAMILIES[family_name], make_coat(family_name, seed, number).trunk
    towards = np.array(family.mark) - np.array(family.base)
    cover = (skin - np.median(skin.reshape(-1, 3), axis=0)) @ towards / (towards @ towards)
    rows, columns = MARK_MAP
    seen = cover[AROUND // 2 - _SEEN : AROUND // 2 + _SEEN]
    cells = seen.reshape(rows, 2 * _SEEN // rows, columns, ALONG // columns).mean((1, 3))
    return np.asarray((cells - cells.mean()) / 0.2, np.float32)


def _plain(base: Points, family: Family, rng: np.random.Generator) -> Skin:
    """Back and belly, the hair's grain along the body, soft changes of tone."""
    around = np.linspace(-np.pi, np.pi, AROUND, endpoint=False)  # 0 is the back
    shade = family.belly + (1 - family.belly) * (0.5 + 0.5 * np.cos(around))
    skin = np.ones((AROUND, ALONG, 1)) * shade[:, None, None] * base
    grain = cv2.GaussianBlur(rng.normal(0, 1, (AROUND, ALONG)), (0, 0), sigmaX=2.2, sigmaY=0.9)
    cloud = cv2.GaussianBlur(rng.normal(0, 1, (AROUND, ALONG)), (0, 0), 13)
    tone = 1 + family.bristle * grain / grain.std() + 0.03 * cloud / cloud.std()
    return np.asarray(skin * tone[..., None], np.float32)


def _add_marks(
    skin: Skin, mark: Points, contrast: float, rng: np.random.Generator, *, count: int, size: tuple[float, float]
) -> None:
    """Patches with crooked edges, mostly on the back where the camera sees them."""
    rows, columns = np.mgrid[0:AROUND, 0:ALONG].astype(np.float64)
    warp = [cv2.GaussianBlur(rng.normal(0, 1, (AROUND, ALONG)), (0, 0), 7.5) * 120 for _ in range(2)]
    for _ in range(count):
        column = rng.uniform(0.06, 0.94) * ALONG
        row = AROUND / 2 + rng.normal(0, 0.15) * AROUND
        radius = rng.uniform(*size) * ALONG
        stretch = rng.uniform(0.6, 1.5)
        away = np.hypot((columns - column + warp[0]) / stretch, ((rows - row + warp[1]) * 0.62) * stretch) / radius
        cover = contrast * np.clip((1.12 - away) / 0.24, 0, 1)
        skin += (cover[..., None] * (mark - skin)).astype(np.float32)


def _add_dirt(skin: Skin, rng: np.random.Generator) -> None:
    """Dung on flanks and rump."""
    field = cv2.GaussianBlur(rng.normal(0, 1, (AROUND, ALONG)), (0, 0), 4.5)
    field = field / field.std()
    side = np.abs(np.linspace(-1, 1, AROUND))[:, None] * 1.3
    rear = np.linspace(0.9, -0.2, ALONG)[None]
    cover = 0.42 * np.clip((field + side + rear - 2.0) / 1.2, 0, 1)
    skin += (cover[..., None] * (np.array((74, 60, 46)) - skin)).astype(np.float32)


def _colour(values: Points) -> Colour:
    red, green, blue = (float(np.clip(value, 0, 255)) for value in values)
    return red, green, blue
