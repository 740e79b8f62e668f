"""What loader, Lightning and callbacks add to a training step: `pl-distill fit` against a bare loop over tensors."""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Callback

from datamodules.layouts import read_clips
from datamodules.pen import draw_pen, load_pen_config
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.commands.lightning import run_lightning
from pl_distill.losses.feature_loss import Progress
from pl_distill.models.sam3 import write_random_sam3
from pl_distill.modules.distillation import DistillationModule
from pl_distill.modules.parameter_groups import parameter_groups
from tests.benchmarks.measure import Figure

STEPS = 32
FRAMES = 16 * STEPS  # one epoch: each begins with a wait for its first batch, which would be paid every few steps
ROUNDS = 3
SKIPPED = 8  # first steps: workers start, memory is laid out


class Clock(Callback):
    """Notes when each training batch ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Note it."""
        self.ends.append(time.perf_counter())


def measure() -> list[Figure]:
    """Time the pen's recipe at its own batch size on drawn frames as large as a pen's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pen = replace(load_pen_config("day"), width=640, height=360)
        draw_pen(folder / "clips", pen, days=["2026_01_01"], clips_per_day=1, frames_per_clip=FRAMES, seed=0)
        write_shards(read_clips(folder / "clips"), load_split("pen"), folder / "shards")
        teacher = write_random_sam3("pen", folder / "teacher", seed=0)
        data = [f"--model.teacher={teacher}", f"--data.shards={folder / 'shards'}", f"--data.cache={folder / 'maps'}"]
        run_lightning(["predict", "--config", "cache/pen.yaml", *data])
        ratios = []
        for number in range(ROUNDS):
            whole, run = _fit(folder / f"fit-{number}", data)
            ratios.append(whole / _bare(run.model, list(run.datamodule.train_dataloader())))
    return [Figure("fit.step_over_bare_loop", statistics.median(ratios), "ratio", "<= 1.05")]


def _fit(folder: Path, data: list[str]) -> tuple[float, Any]:
    """Return the mean seconds of a step, and the finished run."""
    recipes = ["--config", "distill/pen.yaml", "--config", "trainer/cpu.yaml"]
    steps = [f"--trainer.max_steps={STEPS}", f"--trainer.default_root_dir={folder}"]
    clock = Clock()
    with patch.object(DistillationModule, "configure_callbacks", lambda self: [clock]):
        run = run_lightning(["fit", *recipes, *data, *steps])
    return (clock.ends[-1] - clock.ends[SKIPPED - 1]) / (len(clock.ends) - SKIPPED), run


def _bare(module: Any, batches: list[Any]) -> float:
    """Return the mean seconds of a step of the same student, loss and optimiser, without anything around them."""
    module.train()
    optimizer = torch.optim.AdamW(parameter_groups(module.student), lr=1e-3)
    ready = [{**batch, "teacher_map": batch["teacher_map"].float()} for batch in batches]
    begin = 0.0
    for step in range(STEPS):
        if step == SKIPPED:
            begin = time.perf_counter()
        batch = ready[step % len(ready)]
        features = module.compare(batch, level_images=module.loss.pyramid_images(len(batch["image"])))
        loss = module.loss(*features, Progress(step, STEPS))["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.student.parameters(), 1.0)
        optimizer.step()
    return (time.perf_counter() - begin) / (STEPS - SKIPPED)
