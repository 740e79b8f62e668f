import pytest
import torch

from pl_distill.losses.agreement import centred_relative_error, cosine, relative_error


def test_equal_maps_agree():
    features = torch.randn(2, 4, 3, 3)
    assert cosine(features, features).item() == pytest.approx(1)
    assert relative_error(features, features).item() == 0
    assert centred_relative_error(features, features).item() == 0


def test_relative_error_is_a_mean_over_pictures():
    teacher = torch.ones(2, 1, 2, 2) * torch.tensor([1.0, 100.0]).view(2, 1, 1, 1)
    student = teacher * torch.tensor([0.0, 1.5]).view(2, 1, 1, 1)
    assert relative_error(student, teacher).item() == pytest.approx((1 + 0.5) / 2)


def test_a_student_that_knows_only_the_mean_fails_the_centred_error():
    teacher = 10 + torch.randn(2, 4, 3, 3)
    student = teacher.mean((2, 3), keepdim=True).expand_as(teacher)
    assert relative_error(student, teacher).item() < 0.15
    assert centred_relative_error(student, teacher).item() == pytest.approx(1, abs=1e-5)
