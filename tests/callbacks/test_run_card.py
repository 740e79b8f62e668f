from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from torch import nn
from torch.utils.data import DataLoader

from callbacks.run_card import RunCard, extent_of, flatten


class Constant(LightningModule):
    def __init__(self, width=3, student=None):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        self.log("val/cosine", 0.5)
        return self.weight**2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Frames(LightningDataModule):
    def __init__(self, batch_size):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(torch.zeros(40), batch_size=self.batch_size)


def fit(folder, logger, data=None, **options):
    trainer = Trainer(
        accelerator="cpu", max_steps=2, callbacks=[RunCard()], logger=logger, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, log_every_n_steps=1, **options,
    )  # fmt: skip
    trainer.fit(Constant(student={"grid": 8}), data or [torch.zeros(1)] * 2)


def test_config_and_settings_are_on_the_board(tmp_path):
    (tmp_path / "config.yaml").write_text("model:\n  width: 3\n")
    fit(tmp_path, TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False))
    events = EventAccumulator(str(tmp_path)).Reload()
    (text,) = events.Tensors("config/text_summary")
    assert text.tensor_proto.string_val[0].decode() == "    model:\n      width: 3"
    tags = events.summary_metadata
    started = metadata.parse_session_start_info_plugin_data(tags[metadata.SESSION_START_INFO_TAG].plugin_data.content)
    assert started.hparams["width"].number_value == 3
    assert started.hparams["student.grid"].number_value == 8
    assert started.hparams["max_steps"].number_value == 2
    experiment = metadata.parse_experiment_plugin_data(tags[metadata.EXPERIMENT_TAG].plugin_data.content)
    assert "val/cosine" in {info.name.tag for info in experiment.metric_infos}
    assert [event.value for event in events.Scalars("val/cosine")] == [0.5, 0.5]  # nothing is added to the curve


def test_how_many_samples_a_step_sees_and_how_many_epochs_that_are_is_said(tmp_path, caplog):
    board = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    with caplog.at_level("INFO"):
        fit(tmp_path, board, Frames(8), accumulate_grad_batches=2)  # 5 batches, 3 steps an epoch
    assert "2 steps on 1 processes: 16 samples a step, 0.67 epochs" in caplog.text
    tags = EventAccumulator(str(tmp_path)).Reload().summary_metadata
    started = metadata.parse_session_start_info_plugin_data(tags[metadata.SESSION_START_INFO_TAG].plugin_data.content)
    assert started.hparams["samples_per_step"].number_value == 16
    assert started.hparams["epochs"].number_value == pytest.approx(0.67)


@pytest.mark.parametrize(("processes", "epochs"), [(1, 29.63), (8, 236.69)])
def test_eight_gpus_at_the_steps_of_one_train_eight_times_as_long(processes, epochs):
    batches = -(-10800 // (8 * processes))
    data = SimpleNamespace(batch_size=8)
    trainer = SimpleNamespace(
        datamodule=data, num_training_batches=batches, max_steps=40000, accumulate_grad_batches=1, world_size=processes
    )
    assert extent_of(trainer) == {"samples_per_step": 8 * processes, "epochs": epochs}


def test_without_a_board_nothing_is_written(tmp_path):
    fit(tmp_path, False)
    assert list(tmp_path.iterdir()) == []


def test_nested_settings_have_joined_names_and_classes_short_ones():
    loss = {"class_path": "a.b.Huber", "init_args": {"delta": 1, "sizes": [1, 2]}}
    settings = {"loss": loss, "a": {"b": {"c": 1.5}, "d": None}, "_hidden": 3, "f": True}
    assert flatten(settings) == {"loss": "Huber", "loss.delta": 1, "loss.sizes": "[1, 2]", "a.b.c": 1.5, "f": True}
