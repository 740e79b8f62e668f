"""What tests of several commands share: shards of noise, on which random weights find something."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datamodules.clip import Annotation, Clip
from datamodules.shards import write_shards
from datamodules.splits import load_split


class Noise:
    """Noisy pictures of 64 x 48 pixels; a frame source."""

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def __iter__(self):
        rng = np.random.default_rng(0)
        for _ in range(self.frames):
            yield rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)

    def fingerprint(self) -> str:
        return f"{self.frames} noisy pictures"


@pytest.fixture(scope="session")
def noise_shards() -> Callable[[Path, int], Path]:
    """Write two test days, each a clip of so many noisy pictures with one animal in them; returns the folder."""

    def write(folder: Path, frames: int) -> Path:
        box = Annotation(("a",), np.array([(5, 5, 20, 20)], np.float32), (None,), np.array([True]))
        clips = [
            Clip(f"{day}/000000", day, 6.0, 64, 48, frames, Noise(frames), dict.fromkeys(range(frames), box))
            for day in ("2026_01_26", "2026_01_27")
        ]
        write_shards(clips, load_split("pen"), folder)
        return folder

    return write
