import copy

import pytest
import torch
from torch import nn

from pl_distill.errors import CheckpointError
from pl_distill.models.sam3 import load_necks, load_sam3, substitute, trunk_map


class Student(nn.Module):
    def __init__(self, channels=32, stride=14):
        super().__init__()
        self.project = nn.Conv2d(3, channels, stride, stride)

    def forward(self, images):
        return self.project(images)


class Copycat(nn.Module):
    """Answers with the teacher's own map."""

    def __init__(self, teacher):
        super().__init__()
        self.trunk = teacher.detector_model.vision_encoder.backbone

    def forward(self, images):
        return self.trunk(images).last_hidden_state.transpose(1, 2).unflatten(2, (8, 8))


@pytest.fixture
def model(teacher):
    return load_sam3(teacher)


def test_a_student_that_answers_like_the_trunk_changes_nothing_behind_it(model):
    images = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        before = model.detector_model.get_vision_features(pixel_values=images)
        after = substitute(model, Copycat(model)).detector_model.get_vision_features(pixel_values=images)
    assert torch.equal(before.last_hidden_state, after.last_hidden_state)
    assert all(torch.equal(*pair) for pair in zip(before.fpn_hidden_states, after.fpn_hidden_states, strict=True))


def test_the_teacher_keeps_its_trunk_and_shares_the_rest(model):
    images, before = torch.randn(1, 3, 112, 112), copy.deepcopy(model.state_dict())
    student = Student()
    substituted = substitute(model, student)
    assert list(model.state_dict()) == list(before)
    with torch.no_grad():
        assert torch.equal(trunk_map(substituted, images), student(images))
    assert substituted.tracker_model is model.tracker_model
    assert not student.training


def test_necks_that_a_student_brings_replace_the_teachers(model, teacher):
    student, necks = Student(), load_necks(teacher)
    student.detector_neck, student.tracker_neck = necks.detector_neck, necks.tracker_neck
    substituted = substitute(model, student)
    assert substituted.detector_model.vision_encoder.neck is necks.detector_neck
    assert substituted.tracker_neck is necks.tracker_neck
    assert model.tracker_neck is not necks.tracker_neck


@pytest.mark.parametrize(("student", "found"), [(Student(channels=16), "16, 8, 8"), (Student(stride=28), "32, 4, 4")])
def test_another_shape_is_refused_with_both_shapes(model, student, found):
    with pytest.raises(CheckpointError, match=rf"is \(1, {found}\), expected the teacher map's \(1, 32, 8, 8\)"):
        substitute(model, student)
