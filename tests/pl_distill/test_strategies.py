"""What needs no second process; a fit of two is in tests/smoke/test_deepspeed.py."""

import pytest
import torch
from lightning.pytorch import Trainer
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


def test_an_option_that_deepspeed_does_not_know_is_refused():
    with pytest.raises(TypeError, match="stagge"):
        CPUDeepSpeedStrategy(stagge=2)
