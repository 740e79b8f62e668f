import time
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from callbacks.peak_vram import PeakVRAM
from callbacks.resumed_curves import ResumedCurves

CONFIGS = Path(__file__).parents[2] / "configs"
# Hashes of these stand in the cards of shipped models, which they made.
PINNED = {"behaviour/pen.yaml", "behaviour/tracks.yaml", "embedder/pen.yaml"}
RECIPES = [
    name
    for name in sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
    if name not in PINNED and not name.startswith("pen_teacher/")
]


class Counter(LightningModule):
    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.value = value

    def training_step(self, batch, batch_idx):
        self.log("train/value", self.value)
        return self.weight**2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Validated(Counter):
    def validation_step(self, batch, batch_idx):
        self.log("val/value", self.value)


class Crash(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 7:
            raise KeyError("power cut")


def fit(folder, value, *more, ckpt_path=None):
    trainer = Trainer(
        accelerator="cpu", max_steps=10, log_every_n_steps=1, default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, logger=TensorBoardLogger(folder, name="", version=""),
        callbacks=[ModelCheckpoint(folder, filename="at-{step}", every_n_train_steps=4), ResumedCurves(), *more],
    )  # fmt: skip
    trainer.fit(Counter(value), torch.utils.data.DataLoader(range(20)), ckpt_path=ckpt_path, weights_only=False)


def test_what_the_validation_of_a_checkpoint_has_left_is_not_dropped_with_the_steps_behind_it(tmp_path):
    def validate_every_4(value, *more, ckpt_path=None):
        trainer = Trainer(
            accelerator="cpu", max_steps=8, default_root_dir=tmp_path, enable_progress_bar=False,
            check_val_every_n_epoch=None, val_check_interval=4, num_sanity_val_steps=0, enable_model_summary=False,
            logger=TensorBoardLogger(tmp_path, name="", version=""),
            callbacks=[
                PeakVRAM(), ResumedCurves(), *more,
                ModelCheckpoint(tmp_path, filename="at-{step}", save_on_train_epoch_end=False, save_top_k=-1),
            ],
        )  # fmt: skip
        data = torch.utils.data.DataLoader(range(8))
        trainer.fit(Validated(value), data, data, ckpt_path=ckpt_path, weights_only=False)

    with pytest.raises(KeyError, match="power cut"):
        validate_every_4(1.0, Crash())
    time.sleep(1.1)  # see below
    validate_every_4(2.0, ckpt_path=tmp_path / "at-step=4.ckpt")
    board = EventAccumulator(str(tmp_path)).Reload()
    assert [one.step for one in board.Scalars("val/value")] == [3, 7]
    assert [one.step for one in board.Scalars("memory/validation_rss_gib")][:2] == [3, 7]


def test_steps_that_a_crash_has_cost_are_shown_once(tmp_path):
    with pytest.raises(KeyError, match="power cut"):
        fit(tmp_path, 1.0, Crash())
    time.sleep(1.1)  # event files of one second are read in the order of a counter as text: 10 before 9
    fit(tmp_path, 2.0, ckpt_path=tmp_path / "at-step=4.ckpt")
    assert len(list(tmp_path.glob("events*"))) == 2
    curve = EventAccumulator(str(tmp_path)).Reload().Scalars("train/value")
    assert [(one.step, one.value) for one in curve] == [(step, 1.0 if step < 4 else 2.0) for step in range(10)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_that_keeps_a_last_checkpoint_and_a_curve_resumes_the_curve(recipe):
    trainer = yaml.safe_load((CONFIGS / recipe).read_text()).get("trainer", {})
    callbacks = [one if isinstance(one, dict) else {"class_path": one} for one in trainer.get("callbacks", [])]
    keeps = any(one.get("init_args", {}).get("save_last") for one in callbacks)
    if keeps and trainer.get("logger"):
        assert "callbacks.resumed_curves.ResumedCurves" in [one["class_path"] for one in callbacks]
