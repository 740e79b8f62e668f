"""What a drawn frame costs: with it a laptop makes its own data."""

from collections.abc import Iterator
from dataclasses import replace

from datamodules.pen import load_pen_config, pen_frames
from tests.benchmarks.measure import Figure, median_ms


def measure() -> list[Figure]:
    """Draw the default pen at its own size and at the size of a training crop."""
    day = load_pen_config("day")
    frames: Iterator[object] = iter(pen_frames(day, seed=1, frames=40))
    small = iter(pen_frames(replace(day, width=320, height=180), seed=1, frames=40))
    return [
        Figure("pen.frame_640x360_ms", median_ms(lambda: next(frames), rounds=30), "ms", "<= 40"),
        Figure("pen.frame_320x180_ms", median_ms(lambda: next(small), rounds=30), "ms", "<= 30"),
    ]
