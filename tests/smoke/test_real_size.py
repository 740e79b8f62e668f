"""Every verb at real size: SAM 3 (860M parameters) with random weights on disk, and its student, on a CPU.

Hours on a busy core; needs 15 GB of disk and 9 GB of memory. It proves shapes, files and memory of the whole chain
at 860M parameters; not speed, and no accuracy. It prints the seconds and the peak resident set of every verb.

    pytest tests/smoke/test_real_size.py -m slow -s
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from datamodules.layouts import read_clips
from datamodules.pen import draw_pen, load_pen_config
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.cli import main
from pl_distill.commands.lightning import run_lightning
from pl_distill.evaluation.memory import peak_rss_bytes, release_memory, reset_peaks
from pl_distill.models.sam3 import write_random_sam3
from pl_distill.models.student_io import load_student

pytestmark = pytest.mark.slow
FEW = "--policy.max_objects=2"
"""Random weights find something in half of 200 queries, and an animal costs a teraflop in every frame."""


@contextmanager
def measured(verb: str, into: dict[str, tuple[float, float]]) -> Iterator[None]:
    """Note seconds and peak GiB of a verb, and print them."""
    release_memory()
    reset_peaks()
    began = time.perf_counter()
    yield
    into[verb] = (time.perf_counter() - began, peak_rss_bytes() / 2**30)
    print(f"\n{verb:<10}{into[verb][0]:>8.0f} s{into[verb][1]:>8.2f} GiB", flush=True)


def test_the_chain_runs_at_real_size(tmp_path):
    found: dict[str, tuple[float, float]] = {}
    pen = replace(load_pen_config("day"), width=320, height=180)
    draw_pen(tmp_path / "clips", pen, days=["2026_01_01", "2026_01_26"], clips_per_day=1, frames_per_clip=2, seed=0)
    write_shards(read_clips(tmp_path / "clips"), load_split("pen"), tmp_path / "shards")
    with measured("teacher", found):
        teacher = write_random_sam3("real", tmp_path / "teacher", seed=0)

    data = [f"--model.teacher={teacher}", f"--data.shards={tmp_path / 'shards'}", f"--data.cache={tmp_path / 'maps'}"]
    small = ["--data.batch_size=1", "--data.num_workers=0"]
    with measured("predict", found):
        assert main(["predict", "--config", "cache/edinburgh.yaml", *data, *small, "--trainer.devices=1"]) == 0

    recipes = ["--config", "distill/edinburgh.yaml", "--config", "trainer/smoke.yaml"]
    training = [
        "--trainer.max_steps=2",
        f"--trainer.default_root_dir={tmp_path / 'fit'}",
        "--model.student.pretrained=",
    ]
    with measured("fit", found):
        run = run_lightning(["fit", *recipes, *data, *small, *training])
    assert run.model.global_step == 2
    assert torch.isfinite(run.trainer.callback_metrics["train/loss"])
    student = tmp_path / "student"
    run.model.save_pretrained(student)
    del run
    assert sum(parameter.numel() for parameter in load_student(student).parameters()) == 40_621_360

    with measured("package", found):
        assert main(["package", "--model", str(student), "--out", str(tmp_path / "bundle")]) == 0
    with measured("track", found):
        video = next((tmp_path / "clips").rglob("color.mp4"))
        words = ["--model", str(tmp_path / "bundle"), "--max_frames=2", "--device=cpu", FEW]
        assert main(["track", str(video), *words, "--out", str(tmp_path / "tracks")]) == 0
    assert json.loads((tmp_path / "tracks" / "run.json").read_text())["frames"] == 2
    with measured("export", found):
        words = ["--model", str(tmp_path / "bundle"), "--frames=1"]
        assert main(["export", *words, "--out", str(tmp_path / "student.onnx")]) == 0
    assert (tmp_path / "student.onnx").stat().st_size < 1.2 * 40_621_360 * 4
    with measured("budget", found):
        assert main(["budget", "--recipe", "distill/edinburgh.yaml", "--teacher", str(teacher)]) == 0
    with measured("evaluate", found):
        words = ["--model", str(student), "--data", str(tmp_path / "shards"), "--max_frames=2", "--video=false", FEW]
        assert main(["evaluate", *words, "--device=cpu", "--out", str(tmp_path / "scores")]) == 0
    assert (tmp_path / "scores" / "results.json").is_file()
