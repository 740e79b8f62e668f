"""Hours of streaming, from 3,000 frames: what grows per frame and whether it slows down; stock transformers beside it.

Each stream has a process of its own, so that its resident set is its own. Animals are reconditioned every 16 frames,
SAM 3's own setting, which is what makes the exact mode grow at all; in the bounded mode in every frame, the worst that
can be set. 10,000 frames: ``tests.benchmarks.slope``.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.measure import Figure

FRAMES = 3000
RECONDITION = {"exact": 16, "bounded": 1, "stock": 16}  # frames
STOCK_SECONDS = 150.0
GOALS = {
    "exact": {
        "tensor_bytes": "<= 1024",
        "rss_bytes": "<= 10240",
        "python_objects": "<= 1",
        "old_over_young": "<= 1.05",
    },
    "bounded": {
        "tensor_bytes": "<= 0",
        "rss_bytes": "<= 10240",
        "python_objects": "<= 0.01",
        "old_over_young": "<= 1.05",
    },
    "stock": {},
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
    """Stream in each mode, one after the other."""
    figures = []
    for mode, goals in GOALS.items():
        slope = stream(mode)
        figures += [Figure(f"slope.{mode}.{name}", slope[name], unit, goals.get(name)) for name, unit in UNITS.items()]
    return figures


def stream(mode: str) -> dict[str, Any]:
    """Run one stream in its process and return what it measured."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "slope.json"
        words = [f"--mode={mode}", f"--frames={FRAMES}", f"--recondition={RECONDITION[mode]}", f"--out={out}"]
        if mode == "stock":
            words.append(f"--most-seconds={STOCK_SECONDS}")
        subprocess.run([sys.executable, "-m", "tests.benchmarks.slope", *words], check=True, stdout=subprocess.DEVNULL)
        measured: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return measured
