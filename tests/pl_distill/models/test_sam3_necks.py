import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pl_distill.errors import CheckpointError
from pl_distill.models.sam3 import load_necks, load_sam3


def test_both_pyramids_are_those_of_the_whole_model(teacher):
    model, necks = load_sam3(teacher), load_necks(teacher)
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        vision = model.detector_model.get_vision_features(pixel_values=images)
        trunk = vision.last_hidden_state.transpose(1, 2).unflatten(2, (8, 8))
        tracker, _ = model.tracker_neck(trunk)
        pyramids = necks(trunk)
    assert [tuple(level.shape) for level in pyramids.detector] == [(2, 128, size, size) for size in (32, 16, 8)]
    for ours, theirs in ((pyramids.detector, vision.fpn_hidden_states), (pyramids.tracker, tracker)):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs[:3], strict=True))


def test_they_are_frozen_but_let_gradients_through(teacher):
    necks = load_necks(teacher, dtype=torch.bfloat16)
    trunk = torch.randn(1, 32, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    necks(trunk).tracker[0].sum().backward()
    assert trunk.grad is not None
    assert not any(parameter.requires_grad for parameter in necks.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights, key: weights.pop(key), "lacks tracker_neck"),
        (lambda weights, key: weights.update({key: torch.ones(3)}), r"with shape \(3,\), expected shape"),
        (lambda weights, key: weights[key].view(-1)[:1].fill_(float("nan")), "has NaN or infinity in tracker_neck"),
    ],
)
def test_damaged_necks_are_refused(teacher, tmp_path, change, message):
    folder = shutil.copytree(teacher, tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    change(weights, next(key for key in weights if key.startswith("tracker_neck.")))
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_necks(folder)
