import logging
import time

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from callbacks.scaling import Scaling, stragglers
from pl_distill.errors import ConfigError

HOSTS = ["n1", "n1", "n2", "n2"]


def test_the_process_that_computes_slowly_is_named_with_its_host():
    times = [(0.1, 0.4), (0.1, 0.4), (0.1, 0.9), (0.1, 0.4)]
    ratio, lines = stragglers(times, HOSTS, 1.5)
    assert ratio == pytest.approx(2.0)
    assert lines == ["process 2 on n2: 2.0 times the median, computing (100 ms to fetch, 900 ms forward)"]


def test_the_process_that_waits_for_its_disk_is_told_from_one_that_computes():
    _, lines = stragglers([(0.1, 0.4), (2.4, 0.4), (0.1, 1.4), (0.1, 0.4)], HOSTS, 1.5)
    assert [line.split(":")[0] for line in lines] == ["process 1 on n1", "process 2 on n2"]
    assert "fetching" in lines[0]
    assert "computing" in lines[1]


def test_equal_processes_have_no_straggler_and_of_two_the_slower_is_one():
    assert stragglers([(0.1, 0.4)] * 4, HOSTS, 1.5) == (pytest.approx(1.0), [])
    ratio, lines = stragglers([(0.0, 0.2), (0.0, 0.8)], ["a", "b"], 1.5)
    assert ratio == pytest.approx(4.0)
    assert lines[0].startswith("process 1 on b")


class Sleeper(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        time.sleep(0.02)
        return self.weight**2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_rate_and_efficiency_are_of_each_device(tmp_path, caplog):
    frames = [{"image": torch.zeros(3, 2, 2)}] * 24
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[Scaling(single_device_frames_per_second=200.0, every_n_steps=4)],
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, logger="callbacks.scaling"):
        trainer.fit(Sleeper(), torch.utils.data.DataLoader(frames, batch_size=2))
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    rate = metrics["perf/frames_per_second_per_device"]
    assert 2 < rate < 100, "two frames in at least 20 ms"
    assert metrics["perf/scaling_efficiency"] == pytest.approx(rate / 200, rel=1e-5)
    assert metrics["perf/straggler_ratio"] == pytest.approx(1.0)
    assert not [one for one in caplog.records if one.name == "callbacks.scaling"], "one process waits for nobody"


class Judged(Sleeper):
    def validation_step(self, batch, batch_idx):
        time.sleep(0.1)


def test_a_validation_between_two_looks_is_left_out_of_the_rate_and_prevents_none(tmp_path):
    """One before every third batch, and a look at every fourth."""
    frames = torch.utils.data.DataLoader([{"image": torch.zeros(3, 2, 2)}] * 24, batch_size=2)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, val_check_interval=3, num_sanity_val_steps=0,
        callbacks=[Scaling(every_n_steps=4)],
    )  # fmt: skip
    trainer.fit(Judged(), frames, frames)  # a validation takes more than a second
    rate = trainer.callback_metrics["perf/frames_per_second_per_device"].item()
    assert 8 < rate < 100, "eight frames in at least 80 ms, and in less than a second"


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="ratio 1"):
        Scaling(straggler_ratio=1.0)
    with pytest.raises(ConfigError, match="0 frames per second"):
        Scaling(single_device_frames_per_second=0)
