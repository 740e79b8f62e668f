"""What needs no second process; a fit of two is in tests/smoke/test_deepspeed.py."""

import os
from unittest import mock

import deepspeed
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from pl_distill.strategies import CPUDeepSpeedStrategy


def test_cpus_are_numbered_and_gpus_left_alone():
    strategy = CPUDeepSpeedStrategy(stage=2)
    strategy.parallel_devices = [torch.device("cpu"), torch.device("cpu")]
    assert [device.index for device in strategy.parallel_devices] == [0, 1]
    assert torch.zeros(1, device=strategy.parallel_devices[1]).device.type == "cpu"
    strategy.parallel_devices = [torch.device("cuda", 3)]
    assert strategy.parallel_devices == [torch.device("cuda", 3)]
    strategy.parallel_devices = None
    assert strategy.parallel_devices is None


def test_a_trainer_takes_it_on_cpus():
    trainer = Trainer(accelerator="cpu", devices=2, strategy=CPUDeepSpeedStrategy(stage=2), logger=False)
    assert trainer.world_size == 2
    assert trainer.strategy.zero_stage_3 is False


def test_batch_statistics_are_those_of_all_ranks_where_the_trainer_asks_for_it(monkeypatch):
    monkeypatch.setattr(DeepSpeedStrategy, "setup", lambda *_: None)  # needs the other ranks
    for sync in (False, True):
        strategy = CPUDeepSpeedStrategy(stage=2)
        trainer = Trainer(accelerator="cpu", devices=2, strategy=strategy, sync_batchnorm=sync, logger=False)
        trainer.state.fn = TrainerFn.FITTING
        strategy.connect(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
        strategy.setup(trainer)
        assert isinstance(strategy.model[1], nn.SyncBatchNorm) is sync


def test_autocast_is_deepspeeds_own():
    strategy = CPUDeepSpeedStrategy(autocast="bfloat16", stage=2)
    assert strategy.config["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert strategy.config["zero_optimization"]["stage"] == 2
    assert "torch_autocast" not in CPUDeepSpeedStrategy(stage=2).config


class Slope(LightningModule):
    """A loss whose gradient is the batch: with a learning rate of 1 a step goes down by what it was given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.layer.weight)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def on_train_end(self):
        with deepspeed.zero.GatheredParameters([self.layer.weight]):  # where stage 3 has divided it
            self.went = -self.layer.weight.item()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


@pytest.fixture(scope="module")  # DeepSpeed keeps the first group that it has seen
def own_group():
    """A process group of one, and an environment, that the test leaves behind for nobody."""
    with mock.patch.dict(os.environ):
        yield
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def test_a_step_over_several_batches_takes_the_mean_of_their_gradients(own_group, tmp_path):
    def step(batches, clip, strategy):
        module = Slope()
        trainer = Trainer(
            accelerator="cpu", devices=1, strategy=strategy, max_steps=1, accumulate_grad_batches=batches,
            gradient_clip_val=clip, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(torch.tensor([[1.0], [3.0], [5.0], [7.0]]), batch_size=1))
        return module.went

    for stage in (2, 3):
        for batches, mean in ((1, 1.0), (2, 2.0), (4, 4.0)):
            assert step(batches, None, CPUDeepSpeedStrategy(stage=stage)) == step(batches, None, "auto") == mean
        assert step(4, 3.0, CPUDeepSpeedStrategy(stage=stage)) == pytest.approx(3.0, rel=1e-4), "clipped"


@pytest.mark.parametrize(("in_epoch", "in_step"), [(3, 2), (5, 4), (4, 2)])
def test_what_is_left_of_an_epoch_makes_a_step_as_without_deepspeed(in_epoch, in_step, own_group, tmp_path):
    class Followed(Slope):
        def on_train_start(self):
            self.path = []

        def on_train_batch_end(self, *_):
            with deepspeed.zero.GatheredParameters([self.layer.weight]):
                self.path.append((self.global_step, self.layer.weight.item()))

    def follow(strategy):
        module = Followed()
        trainer = Trainer(
            accelerator="cpu", devices=1, strategy=strategy, max_steps=5, accumulate_grad_batches=in_step,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path, use_distributed_sampler=False,
        )  # fmt: skip
        batches = torch.arange(1.0, in_epoch + 1)[:, None]
        trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=1))
        assert module.path[-1][0] == 5
        return module.path

    alone = follow("auto")
    for stage in (1, 2, 3):
        assert follow(CPUDeepSpeedStrategy(stage=stage)) == alone


def test_an_option_that_deepspeed_does_not_know_is_refused():
    with pytest.raises(TypeError, match="stagge"):
        CPUDeepSpeedStrategy(stagge=2)
