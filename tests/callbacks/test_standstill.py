"""In a process of its own: it dies."""

import os
import signal
import subprocess
import sys

import pytest

from callbacks.standstill import Standstill
from pl_distill.errors import ConfigError

CODE = """
import time
from lightning.pytorch import LightningModule, Trainer
import torch
from callbacks.standstill import Standstill

class Slow(LightningModule):
    def __init__(self, stand_at, phase):
        super().__init__()
        self.line, self.stand_at, self.phase = torch.nn.Linear(1, 1), stand_at, phase
    def training_step(self, batch, batch_idx):
        return self.step_of("train", batch_idx)
    def validation_step(self, batch, batch_idx):
        return self.step_of("val", batch_idx)
    def step_of(self, phase, number):
        time.sleep(0.4)
        while (phase, number) == (self.phase, self.stand_at):
            the_place(0.01)
        return self.line(torch.ones(1, 1)).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

def the_place(seconds):
    time.sleep(seconds)

def fit(stand_at=None, phase="train"):
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    trainer = Trainer(accelerator="cpu", max_epochs=1, callbacks=[Standstill(LIMIT_S)], num_sanity_val_steps=0, **quiet)
    loader = torch.utils.data.DataLoader(range(8))
    trainer.fit(Slow(stand_at, phase), loader, loader)

"""
SLOW = """
fit()
print("a training that is longer than the limit ends", flush=True)
time.sleep(LIMIT_S + 0.5)
print("and so does the count", flush=True)
"""
LIMIT_S = 5.0  # sixteen batches of 0.4 seconds take longer


def run(code):
    words = [sys.executable, "-c", f"LIMIT_S = {LIMIT_S}\n{CODE}{code}"]
    return subprocess.run(words, capture_output=True, text=True, env=os.environ, timeout=240)


@pytest.mark.parametrize("phase", ["train", "val"])
def test_a_fit_that_stands_still_dies_and_says_where(phase):
    ran = run(f"fit(3, {phase!r})")
    assert ran.returncode == -signal.SIGALRM, "142 for a shell: slurm/job.sh starts the job again"
    assert "in the_place" in ran.stderr


def test_a_fit_that_goes_on_is_left_alone_however_long_it_takes():
    ran = run(SLOW)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.splitlines() == ["a training that is longer than the limit ends", "and so does the count"]


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="limit_s: is 0"):
        Standstill(0)
