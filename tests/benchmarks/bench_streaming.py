"""What pruning saves: growth of the session per frame, and time, with and without."""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from datamodules.pen import load_pen_config, pen_frames
from pl_distill.models.prompts import choose_prompt, load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3, write_random_sam3
from pl_distill.streaming import PruningPolicy, StreamingTracker
from tests.benchmarks.measure import Figure

FRAMES = 150
SETTLED = 50  # by then every window is full


def measure() -> list[Figure]:
    """Stream a drawn pen through a small SAM 3 of random weights, pruned and unpruned in turn; its tracks never end."""
    with TemporaryDirectory() as folder:
        source = write_random_sam3("tiny", Path(folder) / "sam3", seed=0)
        model, prompt = load_sam3(source), choose_prompt(load_prompts(source), "pig")
        preprocessing = load_preprocessing(source)
    pictures = [frame.image for frame in pen_frames(load_pen_config("day"), seed=1, frames=FRAMES)]
    trackers = {
        mode: StreamingTracker(model, prompt, preprocessing, PruningPolicy(mode=mode, retirement=None))
        for mode in ("exact", "bounded", "none")
    }
    sizes: dict[str, list[int]] = {mode: [] for mode in trackers}
    entries: dict[str, list[int]] = {mode: [] for mode in trackers}
    seconds: dict[str, list[float]] = {mode: [] for mode in trackers}
    for index, picture in enumerate(pictures):
        for mode, tracker in trackers.items():
            begin = time.perf_counter()
            tracker.update(picture, index / 6)
            seconds[mode].append(time.perf_counter() - begin)
            sizes[mode].append(tracker.session.tensor_bytes())
            entries[mode].append(tracker.session.python_entries())
    goals = {"exact": "<= 1024", "bounded": "<= 0", "none": None}
    figures = [
        Figure(f"streaming.{mode}.session_growth", _slope(sizes[mode]), "B/frame", goals[mode]) for mode in trackers
    ]
    figures += [Figure(f"streaming.{mode}.python_growth", _slope(entries[mode]), "entries/frame") for mode in trackers]
    ratios = [exact / none for exact, none in zip(seconds["exact"], seconds["none"], strict=True)]
    figures.append(Figure("streaming.exact_over_none_time", statistics.median(ratios[SETTLED:]), "ratio", "<= 1.05"))
    return figures


def _slope(values: list[int]) -> float:
    """Mean growth per frame once the windows are full."""
    settled = values[SETTLED:]
    return (settled[-1] - settled[0]) / (len(settled) - 1)
