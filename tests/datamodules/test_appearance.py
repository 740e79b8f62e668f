import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from datamodules.appearance import Appearance
from datamodules.errors import UserError


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (36, 64, 3), np.uint8)


def _rng(seed=0):
    return np.random.default_rng(seed)


def test_the_same_draw_gives_the_same_picture_also_in_another_process(image):
    appearance = Appearance(probability=1)
    first = appearance(image, _rng(1))
    for _ in range(3):
        appearance(image, _rng(2))  # what came before does not matter
    assert np.array_equal(appearance(image, _rng(1)), first)
    assert np.array_equal(pickle.loads(pickle.dumps(appearance))(image, _rng(1)), first)
    assert not np.array_equal(appearance(image, _rng(2)), first)


def test_shape_and_type_stay_and_the_picture_given_is_not_touched(image):
    before = image.copy()
    changed = Appearance(probability=1, blur=1)(image, _rng())
    assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
    assert np.array_equal(image, before)


def test_no_pixel_moves():
    """A bright square stays where it is, whatever the colours and the blur do."""
    image = np.full((48, 64, 3), 60, np.uint8)
    image[10:20, 40:56] = 200
    appearance = Appearance(probability=1, blur=1)
    for seed in range(20):
        light = appearance(image, _rng(seed)).astype(float).mean(2)
        rows, columns = np.nonzero(light > (light.min() + light.max()) / 2)
        assert abs(rows.mean() - 14.5) < 0.5
        assert abs(columns.mean() - 47.5) < 0.5


def test_blur_and_colours_are_drawn_apart(image):
    """Grey pictures of noise: blur takes their spread, a change of brightness their mean."""
    grey = np.repeat(image[:, :, :1], 3, axis=2)
    appearance = Appearance(brightness=0.3, contrast=0, saturation=0, hue=0, blur=0.5, probability=0.5)
    drawn = [appearance(grey, _rng(seed)).astype(float) for seed in range(200)]
    blurred = np.array([one.std() / one.mean() < 0.8 * grey.std() / grey.mean() for one in drawn])
    brighter = np.array([abs(one.mean() - grey.mean()) > 1.5 for one in drawn])
    for both in ((True, True), (True, False), (False, True), (False, False)):
        assert 0.1 < np.mean((blurred == both[0]) & (brighter == both[1])) < 0.4, both


def test_without_chances_nothing_changes(image):
    assert np.array_equal(Appearance(probability=0, blur=0)(image, _rng()), image)


def test_brightness_alone_scales_all_channels_within_its_range(image):
    appearance = Appearance(brightness=0.2, contrast=0, saturation=0, hue=0, blur=0, probability=1)
    ratios = [appearance(image, _rng(seed)).mean() / image.mean() for seed in range(30)]
    assert 0.79 <= min(ratios) < 0.9
    assert 1.05 < max(ratios) <= 1.21


@pytest.mark.parametrize(("name", "value"), [("brightness", 1.5), ("hue", 0.6), ("blur", -0.1), ("probability", 2)])
def test_numbers_out_of_range_are_refused(name, value, refused):
    refused(UserError, lambda: Appearance(**{name: value}), where=f"appearance.{name}", found=f"is {value}")


def test_importing_albumentations_asks_nobody_for_a_newer_version():
    """It does so in a thread while it is imported; here without a network to ask."""
    code = (
        "import socket, numpy as np\n"
        "def refuse(*args, **options): raise SystemExit('asked the network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from datamodules.appearance import Appearance\n"
        "Appearance()(np.zeros((8, 8, 3), np.uint8), np.random.default_rng(0))\n"
        "import albumentations\n"
        "print(albumentations.__version__)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment)
    assert (run.stdout.strip(), run.returncode) == ("2.0.8", 0), run.stderr
