from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pl_distill.errors import ConfigError
from pl_distill.losses.baselines import EfficientSAM3Loss
from pl_distill.losses.direction_then_scale import DirectionThenScaleLoss
from pl_distill.modules.training_identity import (
    data_settings,
    loss_settings,
    optimizer_settings,
    require_same_training,
)


def adamw(**options):
    return optimizer_settings(torch.optim.AdamW([nn.Parameter(torch.zeros(1))], **options))


def test_what_is_given_and_what_is_the_default_are_the_same():
    assert adamw(lr=1e-3, betas=[0.9, 0.999]) == adamw() == adamw(lr=torch.tensor(1e-3, dtype=torch.float64))
    assert loss_settings(DirectionThenScaleLoss(ramp=[0.1, 0.3])) == loss_settings(DirectionThenScaleLoss().eval())


def test_how_an_optimiser_computes_is_left_out():
    assert adamw(foreach=True) == adamw(fused=True) == adamw()


def test_a_learning_rate_in_the_course_of_a_run_is_that_of_its_start():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    optimizer.param_groups[0]["lr"] = 0.01
    assert optimizer_settings(optimizer)["lr"] == 0.5


@pytest.mark.parametrize(
    ("now", "found", "expected"),
    [
        ({"model.optimizer": adamw(lr=2e-3)}, "model.optimizer lr 0.001", "model.optimizer lr 0.002 as in this run"),
        (
            {"model.optimizer": optimizer_settings(torch.optim.SGD([nn.Parameter(torch.zeros(1))]))},
            "is of a run with model.optimizer class AdamW, expected model.optimizer class SGD as in",
            "SGD",
        ),
        ({"model.loss": loss_settings(DirectionThenScaleLoss(pyramid_share=0.5))}, "loss pyramid_share 1.0", "0.5"),
        ({"model.loss": loss_settings(EfficientSAM3Loss())}, "class DirectionThenScaleLoss,", "EfficientSAM3Loss"),
        ({"data": {"codec": "int8", "trunk_sha256": "b"}}, "data codec float16, data trunk_sha256 a", "codec int8"),
    ],
)
def test_what_differs_is_named_with_both_values(now, found, expected):
    before = {
        "data": {"codec": "float16", "trunk_sha256": "a"},
        "model.loss": loss_settings(DirectionThenScaleLoss()),
        "model.optimizer": adamw(),
    }
    require_same_training(before, before, "x.ckpt")
    with pytest.raises(ConfigError) as caught:
        require_same_training(before, {**before, **now}, "runs/x/last.ckpt")
    assert str(caught.value).startswith("runs/x/last.ckpt: is of a run with ")
    assert found in str(caught.value)
    assert expected in caught.value.expected
    assert "config.yaml" in caught.value.fix


@pytest.mark.parametrize("before", [{}, {"data": {}}, {"model.loss": {"class": "DirectionThenScaleLoss"}}])
def test_what_a_checkpoint_does_not_tell_is_believed(before):
    now = {"data": {"trunk_sha256": "a"}, "model.loss": loss_settings(DirectionThenScaleLoss(value_weight=2))}
    require_same_training(before, now, "x.ckpt")


def test_data_that_do_not_know_tell_nothing():
    assert data_settings(None) == data_settings(SimpleNamespace(teacher_trunk_sha256=None)) == {}
    told = SimpleNamespace(teacher_trunk_sha256="a", data_identity={"codec": "int8", "trunk_settings": {}})
    assert data_settings(told) == {"trunk_sha256": "a", "codec": "int8"}
