"""What Lightning says to a user of its verbs, and what it does not."""

import logging

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from pl_distill.commands.lightning import run_lightning
from pl_distill.errors import ConfigError


def test_advertisements_are_not_shown_and_everything_else_is(tmp_path, caplog):
    try:
        run_lightning(["fit", f"--trainer.default_root_dir={tmp_path}"])  # hushes, then finds no recipe
    except ConfigError:
        caplog.clear()
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        Trainer(accelerator="cpu", max_steps=1, default_root_dir=tmp_path).fit(BoringModel())
    assert "GPU available" in caplog.text
    assert "max_steps=1` reached" in caplog.text
    assert "Tip:" not in caplog.text
    assert "litlogger" not in caplog.text


def test_a_time_between_validations_is_refused_of_several_processes(tmp_path):
    words = ["fit", "--config=embedder/pen.yaml", f"--data.folder={tmp_path}", "--trainer.accelerator=cpu"]
    both = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.val_check_interval=00:00:30:00"]
    with pytest.raises(ConfigError, match=r"trainer\.val_check_interval: is a time, expected a number of steps"):
        run_lightning([*words, *both])
