"""Two processes with DeepSpeed ZeRO-2 on CPUs, through the console script; no GPU and no compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pl_distill.models.student_io import load_student

pytestmark = pytest.mark.smoke

RECIPES = [
    "--config",
    "distill/pen.yaml",
    "--config",
    "trainer/smoke.yaml",
    "--config",
    "trainer/deepspeed_stage2.yaml",
]
ON_TWO_CPUS = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.sync_batchnorm=false"]
SMALL = ["--data.batch_size=2", "--data.num_workers=0", "--trainer.val_check_interval=2"]


def fit(data, folder, *more):
    # CXX: a compiler that fails, so that an op built at run time would be seen
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CXX": "/bin/false", "MASTER_ADDR": "127.0.0.1"}
    script = Path(sys.executable).with_name("pl-distill")
    words = [script, "fit", *RECIPES, *ON_TWO_CPUS, *data.options, *SMALL, f"--trainer.default_root_dir={folder}"]
    ran = subprocess.run([*words, *more], env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stderr


def test_two_processes_train_and_the_student_is_read_back(cached, tmp_path):
    fit(cached("tiny"), tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert (last / "checkpoint").is_dir()  # each process writes its part
    assert len(list((last / "checkpoint").glob("*zero_pp_rank_*_optim_states.pt"))) == 2
    student = load_student(last)
    features = student(torch.randn(1, 3, 112, 112))
    assert features.shape == (1, 32, 8, 8)
    assert torch.isfinite(features).all()

    seen = EventAccumulator(str(tmp_path)).Reload()
    assert [one.step for one in seen.Scalars("val/loss")] == [1, 3]
