import pytest
import torch

from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.models.sam3 import Pyramids, load_necks, load_sam3, substitute, trunk_map
from pl_distill.models.sam3_packing import pack, unpack
from pl_distill.models.student_io import load_student
from pl_distill.models.tinyvit_dual import TinyViTDualPyramid
from tests.pl_distill.models.small_student import SIZES

SMALL = {**SIZES, "out_channels": 128, "tower_depths": [1, 2, 3]}


def small(**changes):
    torch.manual_seed(0)
    return TinyViTDualPyramid(**{**SMALL, **changes})


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def levels(pyramids):
    return [level for pyramid in pyramids for level in pyramid]


class Copycat(torch.nn.Module):
    """Answers with the teacher's own pyramids."""

    keeps_necks = False

    def __init__(self, teacher, necks):
        super().__init__()
        self.teacher = [teacher]
        self.necks = necks

    def forward(self, images):
        return self.necks(trunk_map(self.teacher[0], images))


def test_real_size_has_the_papers_parameters_within_half_a_percent():
    with torch.device("meta"):
        student = TinyViTDualPyramid()
    assert count(student.body) == 20_689_968
    assert count(student.laterals) == 322_560
    assert count(student.context) == 132_096
    assert count(student.smooths) == 1_771_776
    assert count(student.detector) + count(student.tracker) == 17_714_688
    assert count(student) == 40_631_088
    assert abs(count(student) / 40.66e6 - 1) < 0.005


def test_real_size_answers_with_six_levels():
    with torch.device("meta"):
        pyramids = TinyViTDualPyramid()(torch.empty(2, 3, 1008, 1008))
    assert [tuple(level.shape) for level in levels(pyramids)] == 2 * [(2, 256, side, side) for side in (288, 144, 72)]


def test_every_parameter_receives_a_gradient_and_the_pyramids_differ():
    student = small()
    pyramids = student(torch.randn(2, 3, 64, 64))
    sum(level.square().sum() for level in levels(pyramids)).backward()
    assert [name for name, parameter in student.named_parameters() if parameter.grad is None] == []
    assert not torch.equal(pyramids.detector[0], pyramids.tracker[0])


def test_packing_is_undone_bit_for_bit():
    pyramids = Pyramids(*(tuple(torch.randn(2, 5, side, side) for side in (12, 6, 3)) for _ in range(2)))
    packed = pack(pyramids)
    assert packed.shape == (2, 9, 2 * 21 * 5)
    features = packed.transpose(1, 2).unflatten(2, (3, 3))  # as transformers hands tokens to a neck
    again = [*unpack(features, "detector"), *unpack(features, "tracker")]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, levels(pyramids), strict=True))
    kept = {level.untyped_storage().data_ptr() for level in again}
    assert packed.untyped_storage().data_ptr() not in kept  # a level that a session keeps does not keep all of them
    assert all(level.untyped_storage().nbytes() == level.numel() * 4 for level in again)


def test_a_student_that_answers_like_trunk_and_necks_changes_nothing_behind_them(teacher):
    model = load_sam3(teacher)
    substituted = substitute(model, Copycat(model, load_necks(teacher)))
    images = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        before = model.detector_model.get_vision_features(pixel_values=images)
        after = substituted.detector_model.get_vision_features(pixel_values=images)
        tracker_before = model.get_vision_features_for_tracker(before)
        tracker_after = substituted.get_vision_features_for_tracker(after)
    # the same numbers in another memory layout: kernels sum in another order
    near = {"rtol": 1e-5, "atol": 1e-5}
    for level in range(3):  # the fourth is read by nobody
        torch.testing.assert_close(before.fpn_hidden_states[level], after.fpn_hidden_states[level], **near)
        assert torch.equal(before.fpn_position_encoding[level], after.fpn_position_encoding[level])
    for theirs, ours in zip(tracker_before, tracker_after, strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, **near)
    assert model.tracker_neck is not substituted.tracker_neck


def test_another_shape_is_refused_with_both_shapes(teacher):
    with pytest.raises(CheckpointError, match=r"\(64, 32, 32\).*expected the teacher's \[\(128, 32, 32\)"):
        substitute(load_sam3(teacher), small(out_channels=64))


def test_a_saved_student_answers_the_same(tmp_path):
    student = small().eval()
    student.save_pretrained(tmp_path)
    again = load_student(tmp_path)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = levels(student(images)), levels(again(images))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert again.config["tower_depths"] == [1, 2, 3]


@pytest.mark.parametrize("depths", [[1, 2], [0, 1, 1]])
def test_impossible_towers_are_refused(depths):
    with pytest.raises(ConfigError, match="3 positive numbers"):
        small(tower_depths=depths)
