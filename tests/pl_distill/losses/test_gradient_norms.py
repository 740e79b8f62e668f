import pytest
import torch

from pl_distill.losses.baselines import EfficientSAM3Loss, MeanSquaredErrorLoss
from pl_distill.losses.direction_then_scale import DirectionThenScaleLoss
from pl_distill.losses.feature_loss import Progress
from pl_distill.losses.gradient_norms import gradient_norms, shares


def random_map(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def halves(features):
    return [features, features[..., ::2, ::2]]


def test_the_norm_of_a_squared_errors_gradient_by_hand():
    student, teacher = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 4.0]).view(1, 2, 1, 1)
    norms = gradient_norms(MeanSquaredErrorLoss(), student, teacher, halves, None)
    assert norms["mse"].item() == pytest.approx(5.0)  # 2 (s - t) / 2 numbers


def test_efficientsam3_is_a_squared_error_in_effect():
    student, teacher = random_map(0, 2, 256, 4, 4), random_map(1, 2, 256, 4, 4)
    found = shares(gradient_norms(EfficientSAM3Loss(), student, teacher, halves, None))
    assert found["direction"] < 0.01


def test_terms_that_are_not_ramped_in_yet_do_not_pull():
    student, teacher = random_map(0, 2, 8, 4, 4), random_map(1, 2, 8, 4, 4)
    norms = gradient_norms(DirectionThenScaleLoss(), student, teacher, halves, Progress(0, 100))
    assert norms["value"] == norms["pyramid_value"] == 0
    assert norms["direction"] > 0
    assert norms["pyramid_direction"] > 0


def test_a_student_of_pyramids_is_measured_on_its_levels():
    ours, theirs = halves(random_map(0, 2, 8, 4, 4)), halves(random_map(1, 2, 8, 4, 4))
    norms = gradient_norms(DirectionThenScaleLoss(), ours, theirs, halves, None)
    assert set(norms) == {"pyramid_direction", "pyramid_value"}
    twice = gradient_norms(DirectionThenScaleLoss(direction_weight=3.0), ours, theirs, halves, None)
    assert twice["pyramid_direction"].item() == pytest.approx(2 * norms["pyramid_direction"].item(), rel=1e-5)
    assert twice["pyramid_value"].item() == pytest.approx(norms["pyramid_value"].item(), rel=1e-5)


def test_measuring_leaves_the_students_own_gradient_alone():
    student = random_map(0, 2, 8, 4, 4).requires_grad_()
    gradient_norms(DirectionThenScaleLoss(), student, random_map(1, 2, 8, 4, 4), halves, None)
    assert student.grad is None


def test_shares_add_up_to_one_and_nothing_pulls_nowhere():
    found = shares({"a": torch.tensor(1.0), "b": torch.tensor(3.0)})
    assert found["b"].item() == pytest.approx(0.75)
    assert shares({"a": torch.tensor(0.0)})["a"] == 0
