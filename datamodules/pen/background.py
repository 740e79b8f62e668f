"""The empty pen as the camera sees it: floor, walls, the alleys around it, feeder and drinkers."""

import cv2
import numpy as np

from datamodules.clip import Image
from datamodules.pen.camera import Camera, Points
from datamodules.pen.config import PenConfig
from datamodules.pen.floor import Ground, concrete, draw_ground
from datamodules.pen.furniture import (
    DRINKER_HEIGHT_M,
    DRINKER_RADIUS_M,
    HOPPER_RADIUS_M,
    TROUGH_HEIGHT_M,
    TROUGH_LENGTH_M,
    Furniture,
    circle,
    trough_ring,
)
from datamodules.pen.light import Light
from datamodules.pen.painting import cast_shadow, fill
from datamodules.pen.seeds import generator

_RIM_M = 0.06  # thickness of the walls
_OUTSIDE_M = 4.0  # how far the alley is drawn beyond the pen


def draw_background(config: PenConfig, furniture: Furniture, light: Light, seed: int, day: str) -> Image:
    """Draw the empty pen; the straw lies anew each day.

    Returns:
        RGB, (height, width, 3), without the fall-off and noise that `Light.expose` adds.
    """
    camera = Camera.of(config)
    pixels_per_m = 1.6 * config.width / config.view_width_m
    image = _alley(config, camera, pixels_per_m, generator(seed, "alley"))
    _walls(image, config, camera)
    ground = draw_ground(config, furniture, pixels_per_m, generator(seed, day, "floor"))
    half = np.array((config.pen_length_m, config.pen_width_m)) / 2
    _lay(image, ground, camera, _rectangle(half, 0.0))
    _wall_shadow(image, config, camera)
    for drinker in furniture.drinkers:
        _drinker(image, camera, drinker, config)
    (_hopper if furniture.hopper else _trough)(image, camera, furniture, generator(seed, day, "feed"))
    return np.clip(image * light.tint, 0, 255).astype(np.uint8)


def _rectangle(half: Points, z: float) -> Points:
    return np.array([(sx * half[0], sy * half[1], z) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))])


def _lay(image: Image, ground: Ground, camera: Camera, corners_m: Points) -> None:
    """Put a floor plan into the picture; only what lies within `corners_m` is changed."""
    corners = camera.project(corners_m)
    source = ground.to_pixels(corners_m[:, :2]) - 0.5
    matrix = cv2.getPerspectiveTransform(source.astype(np.float32), corners.astype(np.float32))
    size = (image.shape[1], image.shape[0])
    # The plan is finer than the picture: blurred first, slats do not turn into moire.
    plan = cv2.GaussianBlur(ground.image, (0, 0), 0.55)
    laid = cv2.warpPerspective(plan, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cover = np.zeros(image.shape[:2], np.uint8)
    fill(cover, corners, (255.0,))
    image[:] = np.where(cover[..., None] > 127, laid, image)


def _alley(config: PenConfig, camera: Camera, pixels_per_m: float, rng: np.random.Generator) -> Image:
    """What lies beyond the walls: swept concrete, a drain, the next pens' walls."""
    image = np.zeros((config.height, config.width, 3), np.uint8)
    half = np.array((config.pen_length_m, config.pen_width_m)) / 2 + _OUTSIDE_M
    scale = pixels_per_m / 2
    width, height = (int(np.ceil(2 * side * scale)) for side in half)
    plan = concrete(width, height, scale, (112, 108, 102), rng)
    ground = Ground(plan, (-float(half[0]), -float(half[1])), scale)
    edge = config.pen_width_m / 2
    for y, depth, colour in ((-edge - 0.62, 0.10, (66, 64, 60)), (edge + 0.75, 0.10, (66, 64, 60))):
        top, bottom = (int((row + half[1]) * scale) for row in (y - depth / 2, y + depth / 2))
        plan[max(top, 0) : max(bottom, 1)] = colour
    for y in (-edge - 1.25, edge + 1.35):  # beyond the alleys the next pens, darker
        rows = plan[: int((y + half[1]) * scale)] if y < 0 else plan[int((y + half[1]) * scale) :]
        rows[:] = (rows * 0.72).astype(np.uint8)
    _lay(image, ground, camera, _rectangle(half, 0.0))
    for y in (-edge - 1.25, edge + 1.35):
        wall = np.array([(sx * half[0], y + dy, 0.9) for sx, dy in ((-1, -0.03), (1, -0.03), (1, 0.03), (-1, 0.03))])
        fill(image, camera.project(wall), (150, 150, 148))
    return image


def _walls(image: Image, config: PenConfig, camera: Camera) -> None:
    """Panels that lean outwards in the picture, their rim, and posts."""
    half = np.array((config.pen_length_m, config.pen_width_m)) / 2
    outer = camera.project(_rectangle(half + _RIM_M, config.wall_height_m))
    cast_shadow(
        image, [outer + 0.05 * config.width / config.view_width_m], 0.5, 0.06 * config.width / config.view_width_m
    )
    fill(image, outer, (178, 178, 172))
    inner, floor = (camera.project(_rectangle(half, z)) for z in (config.wall_height_m, 0.0))
    fill(image, inner, (96, 94, 90))
    for side, shade in enumerate(
        (0.80, 0.72, 1.04, 0.98)
    ):  # upper, right, lower, left: the lamp hangs to the upper left
        other = (side + 1) % 4
        for step in range(8):  # darker and dirtier towards the floor
            low, high = step / 8, (step + 1) / 8
            strip = np.array(
                [
                    floor[i] + t * (inner[i] - floor[i])
                    for i, t in ((side, low), (other, low), (other, high), (side, high))
                ]
            )
            grey = shade * (92 + 62 * high)
            fill(image, strip, (grey * 1.02, grey, grey * 0.95))
        length = float(np.hypot(*(_rectangle(half, 0.0)[side] - _rectangle(half, 0.0)[other])[:2]))
        for t in np.linspace(0, 1, max(2, round(length / 0.97) + 1))[1:-1]:
            foot, head = (edge[side] + t * (edge[other] - edge[side]) for edge in (floor, inner))
            cv2.line(image, _pixel(foot), _pixel(head), (84, 84, 80), max(1, config.width // 480), cv2.LINE_AA)


def _wall_shadow(image: Image, config: PenConfig, camera: Camera) -> None:
    """The upper and left wall keep the lamp from the floor at their foot."""
    half = np.array((config.pen_length_m, config.pen_width_m)) / 2
    x, y, depth = half[0], half[1], 0.16 * config.wall_height_m / 0.7
    upper = np.array([(-x, -y, 0), (x, -y, 0), (x, -y + depth, 0), (-x, -y + depth, 0)])
    left = np.array([(-x, -y, 0), (-x + depth, -y, 0), (-x + depth, y, 0), (-x, y, 0)])
    floor = np.zeros(image.shape[:2], np.uint8)
    fill(floor, camera.project(_rectangle(half, 0.0)), (255.0,))
    darker = image.copy()
    cast_shadow(darker, [camera.project(upper), camera.project(left)], 0.45, 0.07 * config.width / config.view_width_m)
    image[:] = np.where(floor[..., None] > 127, darker, image)


def _trough(image: Image, camera: Camera, furniture: Furniture, rng: np.random.Generator) -> None:
    centre = furniture.feeder
    foot, rim = (trough_ring(camera, centre, z) for z in (0.0, TROUGH_HEIGHT_M))
    unit = float(np.hypot(*(rim[1] - rim[0]))) / TROUGH_LENGTH_M
    cast_shadow(image, [foot + 0.05 * unit], 0.5, max(1.0, 0.05 * unit))
    sides = cv2.convexHull(np.concatenate((foot, rim)).astype(np.float32))[:, 0]
    fill(image, sides.astype(np.float64), (150, 154, 158))
    fill(image, rim, (202, 206, 210))
    fill(image, trough_ring(camera, centre, TROUGH_HEIGHT_M, 0.025), (92, 94, 98))
    feed = trough_ring(camera, centre, 0.09, 0.045)
    fill(image, feed, (156, 124, 82))
    for place in rng.uniform(0, 1, (160, 2)):
        spot = feed[0] + place[0] * (feed[1] - feed[0]) + place[1] * (feed[3] - feed[0])
        grey = float(rng.uniform(0.8, 1.25))
        cv2.circle(image, _pixel(spot), max(1, int(0.012 * unit)), (150 * grey, 118 * grey, 76 * grey), -1, cv2.LINE_AA)
    for t in (1 / 4, 2 / 4, 3 / 4):  # bars between the places
        ends = [rim[a] + t * (rim[b] - rim[a]) for a, b in ((0, 1), (3, 2))]
        cv2.line(image, _pixel(ends[0]), _pixel(ends[1]), (188, 192, 198), max(1, round(0.03 * unit)), cv2.LINE_AA)


def _hopper(image: Image, camera: Camera, furniture: Furniture, rng: np.random.Generator) -> None:
    centre = furniture.feeder
    rim = circle(camera, centre, HOPPER_RADIUS_M, TROUGH_HEIGHT_M)
    unit = float(np.ptp(rim[:, 0])) / (2 * HOPPER_RADIUS_M)
    foot = circle(camera, centre, HOPPER_RADIUS_M, 0.0)
    cast_shadow(image, [foot + 0.06 * unit], 0.5, max(1.0, 0.06 * unit))
    fill(image, foot, (70, 74, 80))
    fill(image, rim, (196, 92, 54))
    fill(image, circle(camera, centre, 0.88 * HOPPER_RADIUS_M, TROUGH_HEIGHT_M), (104, 50, 34))
    feed = circle(camera, centre, 0.80 * HOPPER_RADIUS_M, 0.10)
    fill(image, feed, (166, 134, 90))
    middle, radius = feed.mean(0), 0.75 * HOPPER_RADIUS_M * unit
    for angle, far in rng.uniform((0, 0.5), (2 * np.pi, 1), (120, 2)):
        spot = middle + far * radius * np.array((np.cos(angle), np.sin(angle)))
        grey = float(rng.uniform(0.8, 1.25))
        cv2.circle(image, _pixel(spot), max(1, int(0.012 * unit)), (150 * grey, 118 * grey, 76 * grey), -1, cv2.LINE_AA)
    for radius_m, z, colour in (
        (0.15, 0.5, (170, 76, 44)),
        (0.145, 0.75, (206, 104, 62)),
        (0.10, 0.76, (228, 132, 88)),
    ):
        fill(image, circle(camera, centre, radius_m, z), colour)


def _drinker(image: Image, camera: Camera, centre: tuple[float, float], config: PenConfig) -> None:
    wall = camera.project(np.array((centre[0], config.pen_width_m / 2, 0.45)))
    bowl = circle(camera, centre, DRINKER_RADIUS_M, DRINKER_HEIGHT_M)
    unit = float(np.ptp(bowl[:, 0])) / (2 * DRINKER_RADIUS_M)
    cast_shadow(image, [bowl + 0.06 * unit], 0.45, max(1.0, 0.04 * unit))
    cv2.line(image, _pixel(wall), _pixel(bowl.mean(0)), (120, 124, 130), max(1, round(0.045 * unit)), cv2.LINE_AA)
    fill(image, bowl, (214, 218, 224))
    fill(image, circle(camera, centre, 0.78 * DRINKER_RADIUS_M, DRINKER_HEIGHT_M - 0.03), (52, 66, 78))
    fill(
        image,
        circle(camera, (centre[0] - 0.02, centre[1] - 0.02), 0.25 * DRINKER_RADIUS_M, DRINKER_HEIGHT_M - 0.03),
        (150, 176, 194),
    )


def _pixel(point: Points) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
