"""Hours of streaming, from 3,000 frames: what grows per frame and whether it slows down; stock transformers beside it.

Each stream has a process of its own, so that its resident set is its own. With random weights animals are reconditioned
every 16 frames, SAM 3's own setting, which is what makes the exact mode grow at all; in the bounded mode in every
frame, the worst that can be set. The trained `pen_teacher` does so by itself. 10,000: ``tests.benchmarks.slope``.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.measure import Figure

FRAMES = 3000
STREAMS = {
    "exact": ["--mode=exact", "--recondition=16"],
    "bounded": ["--mode=bounded", "--recondition=1"],
    "stock": ["--mode=stock", "--recondition=16", "--most-seconds=150"],
    "pen_teacher.bounded": ["--mode=bounded", "--model=pen_teacher"],
    "pen_teacher.stock": ["--mode=stock", "--model=pen_teacher", "--most-seconds=600", "--most-gib=8"],
}
"""Words of `tests.benchmarks.slope`."""

BOUNDED = {
    "tensor_bytes": "<= 0",
    "rss_bytes": "<= 10240",
    "python_objects": "<= 0.01",
    "old_over_young": "<= 1.05",
}
GOALS = {
    "exact": {
        "tensor_bytes": "<= 1024",
        "rss_bytes": "<= 10240",
        "python_objects": "<= 1",
        "old_over_young": "<= 1.05",
    },
    "bounded": BOUNDED,
    "pen_teacher.bounded": BOUNDED,
}
UNITS = {
    "frames": "frames",
    "tensor_bytes": "B/frame",
    "rss_bytes": "B/frame",
    "python_objects": "1/frame",
    "early_ms": "ms",
    "late_over_early": "ratio",
    "old_over_young": "ratio",
}


def measure() -> list[Figure]:
    """Run each stream, one after the other."""
    figures = []
    for name, words in STREAMS.items():
        slope, goals = stream(words), GOALS.get(name, {})
        figures += [Figure(f"slope.{name}.{one}", slope[one], unit, goals.get(one)) for one, unit in UNITS.items()]
    return figures


def stream(words: Sequence[str]) -> dict[str, Any]:
    """Run one stream in its process and return what it measured."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "slope.json"
        command = [sys.executable, "-m", "tests.benchmarks.slope", f"--frames={FRAMES}", f"--out={out}", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        measured: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return measured
