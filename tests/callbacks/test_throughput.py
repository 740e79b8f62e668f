import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from callbacks.throughput import Throughput
from pl_distill.commands.parsing import find_recipe


class Sleeper(LightningModule):
    """Works for 20 ms a batch, and validates for 200 ms."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        time.sleep(0.02)
        return self.weight**2

    def validation_step(self, batch, batch_idx):
        time.sleep(0.1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Slow(torch.utils.data.Dataset):
    """Frames that take some time to read, in seconds."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return 12

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return {"image": torch.zeros(3, 2, 2)}


def fit(folder, seconds):
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[Throughput()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, num_sanity_val_steps=0,
        val_check_interval=3,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader
    trainer.fit(Sleeper(), loader(Slow(seconds), batch_size=2), loader(Slow(0.0), batch_size=12))
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def test_a_run_that_waits_for_its_data_says_so(tmp_path):
    waiting, working = fit(tmp_path, seconds=0.1), fit(tmp_path, seconds=0.0)
    assert waiting["perf/data_wait_share"] > 0.5
    assert working["perf/data_wait_share"] < waiting["perf/data_wait_share"]
    assert 1 < waiting["perf/frames_per_second"] < 2 / 0.22 + 1e-3  # two frames in at least 220 ms
    assert working["perf/frames_per_second"] > waiting["perf/frames_per_second"]


def test_memory_is_in_gib(tmp_path):
    metrics = fit(tmp_path, seconds=0.0)
    assert 0.05 < metrics["perf/peak_rss_gib"] < 64
    assert "perf/peak_vram_gib" not in metrics or torch.cuda.is_available()


def test_the_time_of_a_validation_is_no_waiting():
    callback = Throughput()
    callback._ended = time.perf_counter() - 100
    callback.on_validation_end(None, None)
    assert callback._ended is None


@pytest.mark.parametrize("trainer", ["cpu", "gpu_1", "ddp", "deepspeed_stage2", "deepspeed_stage3", "smoke"])
def test_every_trainer_measures_itself(trainer):
    text = Path(find_recipe(f"trainer/{trainer}.yaml")).read_text(encoding="utf-8")
    assert "callbacks.throughput.Throughput" in text
    assert "callbacks.run_card.RunCard" in text
