from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pl_distill.models.prompts import load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3, write_random_sam3

HEIGHT, WIDTH = 48, 64


def blobs(frames: int, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Five discs moving over a noisy floor."""
    rng = np.random.default_rng(seed)
    floor = rng.integers(40, 80, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    start, step = rng.uniform(0.2, 0.8, (5, 2)), rng.normal(0, 0.01, (5, 2))
    colours = rng.integers(120, 255, (5, 3))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for frame in range(frames):
        picture = floor.copy()
        for centre, colour in zip((start + frame * step) % 1, colours, strict=True):
            picture[(x - centre[0] * WIDTH) ** 2 + (y - centre[1] * HEIGHT) ** 2 < 40] = colour
        yield picture


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> Path:
    return write_random_sam3("tiny", tmp_path_factory.mktemp("sam3") / "tiny", seed=0)


@pytest.fixture(scope="session")
def prompt(teacher):
    return load_prompts(teacher)["pig"]


@pytest.fixture(scope="session")
def preprocessing(teacher):
    return load_preprocessing(teacher)


@pytest.fixture
def model(teacher):
    """A fresh model for every test: some change its thresholds."""
    return load_sam3(teacher)


@pytest.fixture
def clip():
    return blobs
