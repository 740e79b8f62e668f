"""Painting one animal into a picture, anti-aliased, from shadow and legs to ears and eyes."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clip import Image
from datamodules.pen.camera import Points
from datamodules.pen.coats import ALONG, AROUND, CoatOf, Skin
from datamodules.pen.light import TOWARDS_LIGHT, Light
from datamodules.pen.shapes import Shape, Tube
from datamodules.pen.species import STATIONS

SHIFT = 4
"""Binary places of a pixel that OpenCV gets."""

_FLANK_LIGHT = (0.46, 0.54, 0.62, 0.70, 0.77)  # from the belly up
_UNIFORM = np.linspace(-1, 1, 256)
_ACROSS = np.linspace(-1, 1, 256)
_ANGLE = np.arcsin(_ACROSS)
_ENDS = (1 - 0.20 * np.abs(_UNIFORM) ** 7).astype(np.float32)


@dataclass(frozen=True)
class LitCoat:
    """A coat under the pen's light, ready to paint; colours are RGB, 0-255."""

    trunk: Skin
    head: Skin
    limb: tuple[float, ...]
    hoof: tuple[float, ...]
    ear: tuple[float, ...]
    rim: tuple[float, ...]
    inner: tuple[float, ...]
    tail: tuple[float, ...]
    flanks: tuple[tuple[float, ...], ...]
    neck: tuple[float, ...]
    eye: tuple[float, ...]
    lid: tuple[float, ...]

    @classmethod
    def of(cls, coat: CoatOf, light: Light) -> "LitCoat":
        """Show a coat under a light."""
        tint = light.tint.astype(np.float32)
        return cls(
            trunk=coat.trunk * tint,
            head=coat.head * tint,
            limb=light.colour(coat.limb, 0.82),
            hoof=light.colour(coat.limb, 0.45),
            ear=light.colour(coat.ear),
            rim=light.colour(coat.ear, 0.70),
            inner=light.colour(coat.inner, 0.92),
            tail=light.colour(coat.tail, 0.9),
            flanks=tuple(light.colour(coat.trunk.mean((0, 1)), factor) for factor in _FLANK_LIGHT),
            neck=light.colour(coat.head.mean((0, 1)), 0.78),
            eye=light.colour(coat.eye),
            lid=light.colour(coat.ear, 0.5),
        )


def fixed_point(points: Points) -> NDArray[np.int32]:
    """Pixels to what OpenCV takes with `shift=SHIFT`."""
    return np.rint(np.clip(points, -4000, 8000) * (1 << SHIFT)).astype(np.int32)


def fill(image: Image, outline: Points, colour: tuple[float, ...]) -> None:
    """Fill a polygon with smooth edges."""
    cv2.fillPoly(image, [fixed_point(outline)], colour, cv2.LINE_AA, SHIFT)


def cast_shadow(image: Image, outlines: list[Points], strength: float, blur_px: float) -> None:
    """Darken what lies below the outlines, softly."""
    points = np.concatenate(outlines)
    window = _window(image, points, margin=int(2 * blur_px) + 2)
    if window is None:
        return
    top, left, bottom, right = window
    cover = np.zeros((bottom - top, right - left), np.uint8)
    for outline in outlines:
        cv2.fillPoly(cover, [fixed_point(outline - (left, top))], 255, cv2.LINE_8, SHIFT)
    size = 2 * int(blur_px) + 1
    soft = cv2.blur(cv2.blur(cover, (size, size)), (size, size))
    factor = 255 - cv2.convertScaleAbs(soft, alpha=strength)
    area = image[top:bottom, left:right]
    cv2.multiply(area, cv2.merge((factor, factor, factor)), dst=area, scale=1 / 255)


def paint_animal(
    image: Image, shape: Shape, coat: LitCoat, heading: float, *, asleep: bool, pixels_per_m: float
) -> None:
    """Paint one animal over what is there.

    Args:
        image: Changed in place.
        shape: Where its parts are.
        coat: Its colours.
        heading: Direction of the trunk in radians.
        asleep: Whether its eyes are shut.
        pixels_per_m: Size of a metre at the animal; decides how soft the shadow is.
    """
    drop = np.array((-TOWARDS_LIGHT[0], -TOWARDS_LIGHT[1])) * 0.16 * pixels_per_m
    cast_shadow(image, [outline + drop for outline in shape.shadow] + shape.legs, 0.55, max(1.0, 0.045 * pixels_per_m))
    for leg in shape.legs:
        fill(image, leg, coat.limb)
        fill(image, leg[8:], coat.hoof)
    fill(image, shape.tail, coat.tail)
    for flank, colour in zip(shape.flanks, coat.flanks, strict=True):
        fill(image, flank, colour)
    fill(image, shape.neck, coat.neck)
    _paint_tube(image, shape.trunk, coat.trunk, heading)
    _paint_tube(image, shape.head, coat.head, _direction(shape.head))
    fill(image, shape.snout, coat.inner)
    for ear in shape.ears:
        fill(image, ear, coat.rim)
        middle = ear.mean(0)
        fill(image, middle + 0.84 * (ear - middle), coat.ear)
        fill(
            image,
            middle + 0.45 * (ear - middle),
            tuple(0.5 * (a + b) for a, b in zip(coat.ear, coat.inner, strict=True)),
        )
    for eye in shape.eyes:
        fill(image, eye, coat.lid if asleep else coat.eye)


def _paint_tube(image: Image, tube: Tube, skin: Skin, heading: float) -> None:
    window = _window(image, tube.outline, margin=2)
    if window is None:
        return
    top, left, bottom, right = window
    cover = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(cover, [fixed_point(tube.outline - (left, top))], 255, cv2.LINE_AA, SHIFT)
    rows, columns = np.nonzero(cover)
    if not len(rows):
        return
    alpha = cover[rows, columns].astype(np.float32)[:, None] * np.float32(1 / 255)
    rows += top
    columns += left
    x, y = columns.astype(np.float32), rows.astype(np.float32)
    matrix = tube.to_local.astype(np.float32)
    ahead = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    aside = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    bend = np.float32(tube.bend)
    aside -= bend / 2 * ahead * ahead
    ahead += bend * ahead * aside
    station = ahead * np.float32(127.5 / tube.half_length_m) + np.float32(127.5)
    station = np.clip(np.rint(station), 0, 255).astype(np.intp)
    widths = np.stack([np.interp(_UNIFORM, STATIONS, row) for row in tube.widths_m]).astype(np.float32)
    widths = np.maximum(widths, 0.25 * widths.max())
    width = np.where(aside > 0, widths[0][station], widths[1][station])
    across = np.clip(aside / width * np.float32(127.5) + np.float32(128), 0, 255).astype(np.intp)
    row_of = np.rint(AROUND / 2 + (_ANGLE + tube.roll) * (AROUND / (2 * np.pi))).astype(np.intp) % AROUND
    right = -np.sin(heading) * TOWARDS_LIGHT[0] + np.cos(heading) * TOWARDS_LIGHT[1]
    facing = np.sqrt(1 - _ACROSS**2) * TOWARDS_LIGHT[2] + _ACROSS * right
    shade = (0.56 + 0.58 * np.maximum(facing, 0)).astype(np.float32)
    ahead_light = np.float32(np.cos(heading) * TOWARDS_LIGHT[0] + np.sin(heading) * TOWARDS_LIGHT[1])
    ends = _ENDS * (1 + np.float32(0.22) * ahead_light * (_UNIFORM**3).astype(np.float32))
    column = (station * ((ALONG - 1) / 255)).astype(np.intp)
    colour = skin.reshape(-1, 3)[row_of[across] * ALONG + column]
    colour *= (shade[across] * ends[station])[:, None]
    below = image[rows, columns]
    image[rows, columns] = np.clip(below + alpha * (colour - below), 0, 255).astype(np.uint8)


def _direction(tube: Tube) -> float:
    """Direction of a part in the picture, from its map to local coordinates."""
    return float(np.arctan2(tube.to_local[0, 1], tube.to_local[0, 0]))


def _window(image: Image, points: Points, margin: int) -> tuple[int, int, int, int] | None:
    """Top, left, bottom, right around the points, inside the picture; None if nothing is."""
    (left, top), (right, bottom) = points.min(0), points.max(0)
    top, left = max(0, int(top) - margin), max(0, int(left) - margin)
    bottom, right = min(image.shape[0], int(bottom) + margin + 1), min(image.shape[1], int(right) + margin + 1)
    return (top, left, bottom, right) if top < bottom and left < right else None
