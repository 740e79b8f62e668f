"""What needs no second process; that ranks agree is in tests/smoke/test_deepspeed.py."""

import torch
from torch import nn

from callbacks.batchnorm_agreement import BatchNormAgreement, statistics


class _Strategy:
    """Another process that always has zeros."""

    def reduce(self, tensor, reduce_op):
        assert reduce_op == "mean"
        return tensor / 2


class _Trainer:
    world_size = 2
    strategy = _Strategy()


def network():
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.SyncBatchNorm(4), nn.BatchNorm1d(5, track_running_stats=False), nn.BatchNorm1d(2)
    )


def test_running_statistics_of_plain_batchnorm_alone_are_averaged():
    module = network()
    assert [one.numel() for one in statistics(module)] == [3, 3, 2, 2]
    before = [one.clone() for one in statistics(module)]
    weights = {name: value.clone() for name, value in module.named_parameters()}
    callback = BatchNormAgreement()
    callback.on_train_start(_Trainer(), module)
    callback.on_train_batch_end(_Trainer())
    assert all(torch.equal(one, old / 2) for one, old in zip(statistics(module), before, strict=True))
    assert torch.equal(module[1].running_var, torch.ones(4))
    assert all(torch.equal(value, weights[name]) for name, value in module.named_parameters())


def test_one_process_sends_no_message():
    class Alone(_Trainer):
        world_size = 1
        strategy = None

    callback = BatchNormAgreement()
    callback.on_train_start(Alone(), network())
    callback.on_train_batch_end(Alone())
