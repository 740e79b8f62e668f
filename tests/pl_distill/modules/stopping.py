"""What tests need that stop a training at a step and compare its end with that of one left alone."""

import shutil
from pathlib import Path

import torch

KEEP_EACH_STEP = (
    *("--trainer.callbacks+", "lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.callbacks.save_last", "true"),
    *("--trainer.callbacks.save_top_k", "-1", "--trainer.callbacks.every_n_train_steps", "1"),
    *("--trainer.callbacks.filename", "{step}", "--trainer.callbacks.enable_version_counter", "false"),
)
"""Options of a fit that then has a checkpoint of every step."""


def stop_at(step: int, checkpoints: Path, stopped: Path) -> None:
    """Make `stopped` what `checkpoints` was when the step had been made: ``--ckpt_path last`` goes on from there."""
    shutil.copytree(checkpoints, stopped)
    shutil.copy(stopped / f"step={step}.ckpt", stopped / "last.ckpt")


def assert_same_weights(ours: Path, theirs: Path) -> None:
    """Compare the tensors of two checkpoints, bit by bit."""
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in (ours, theirs))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
