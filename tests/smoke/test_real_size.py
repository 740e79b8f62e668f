"""The recipe of real size starts: SAM 3 with random weights on disk, two frames cached, two steps at batch 1 on a CPU.

Took 21 minutes on a busy core; needs 5 GB of disk. What it proves: shapes, files and memory of the whole chain at 860M
parameters; not speed, and no accuracy.
"""

from dataclasses import replace

import pytest
import torch

from datamodules.layouts import read_clips
from datamodules.pen import draw_pen, load_pen_config
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.cli import main
from pl_distill.commands.lightning import run_lightning
from pl_distill.models.sam3 import write_random_sam3
from pl_distill.models.student_io import load_student

pytestmark = pytest.mark.slow


def test_the_real_recipe_starts_with_a_teacher_of_random_weights(tmp_path):
    pen = replace(load_pen_config("day"), width=320, height=180)
    draw_pen(tmp_path / "clips", pen, days=["2026_01_01"], clips_per_day=1, frames_per_clip=2, seed=0)
    write_shards(read_clips(tmp_path / "clips"), load_split("pen"), tmp_path / "shards")
    teacher = write_random_sam3("real", tmp_path / "teacher", seed=0)
    data = [f"--model.teacher={teacher}", f"--data.shards={tmp_path / 'shards'}", f"--data.cache={tmp_path / 'maps'}"]
    small = ["--data.batch_size=1", "--data.num_workers=0"]
    assert main(["predict", "--config", "cache/edinburgh.yaml", *data, *small, "--trainer.devices=1"]) == 0

    recipes = ["--config", "distill/edinburgh.yaml", "--config", "trainer/smoke.yaml"]
    training = [
        "--trainer.max_steps=2",
        f"--trainer.default_root_dir={tmp_path / 'fit'}",
        "--model.student.pretrained=",
    ]
    run = run_lightning(["fit", *recipes, *data, *small, *training])
    assert run.model.global_step == 2
    assert torch.isfinite(run.trainer.callback_metrics["train/loss"])
    run.model.save_pretrained(tmp_path / "student")
    student = load_student(tmp_path / "student")
    assert sum(parameter.numel() for parameter in student.parameters()) == 40_621_360
