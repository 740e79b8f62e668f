from types import SimpleNamespace

import pytest
import torch
from torch import nn

import callbacks.mask_agreement
from callbacks.mask_agreement import MaskAgreement
from pl_distill.errors import ConfigError
from pl_distill.modules.distillation import DistillationModule


class Heads(nn.Module):
    """Takes the finest level for the probabilities."""

    def forward(self, levels):
        assert len(levels) == 3  # the detector's, not the tracker's
        return levels[0].mean(1)


@pytest.fixture
def module(monkeypatch):
    """A module whose logged values can be read; the heads are those above."""
    monkeypatch.setattr(callbacks.mask_agreement, "load_heads", lambda teacher, word: Heads())
    task = DistillationModule(teacher="none")
    task.logged = []
    monkeypatch.setattr(task, "log", lambda name, value, **_: task.logged.append((name, value.item())))
    return task


def levels(*frames):
    """Six levels of frames (B, 1, 2, 2) that are everywhere as probable as given."""
    return [torch.tensor(frames).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)] * 6


def compare(module, student, teacher, frames=1, batches=(0,), of=1):
    callback, trainer = MaskAgreement(frames=frames), SimpleNamespace(num_val_batches=[of])
    callback.setup(trainer, module, "fit")
    outputs = {"student_levels": levels(*student), "teacher_levels": levels(*teacher)}
    for batch in batches:
        callback.on_validation_batch_end(trainer, module, outputs, None, batch)
    return module.logged


@pytest.mark.parametrize(("student", "overlap"), [(0.8, 1.0), (0.4, 0.5), (0.2, 0.25), (0.0, 0.0)])
def test_the_overlap_of_both_masks_is_logged(module, student, overlap):
    assert compare(module, [student], [0.8]) == [("val/mask_agreement", pytest.approx(overlap))]


def test_only_the_first_frame_of_a_batch_counts(module):
    assert compare(module, [0.5, 0.0], [0.5, 1.0]) == [("val/mask_agreement", 1.0)]


def test_frames_are_spread_over_the_validation(module):
    logged = [len(compare(module, [0.5], [0.5], frames=2, batches=[batch], of=5)) for batch in range(5)]
    assert logged == [1, 1, 1, 1, 2]  # counted on: the first and the last batch


def test_without_a_teacher_or_a_frame_it_is_refused():
    with pytest.raises(ConfigError, match=r"MaskAgreement\.frames: is 0"):
        MaskAgreement(frames=0)
    with pytest.raises(ConfigError, match="is used with Identity, expected DistillationModule"):
        MaskAgreement().setup(None, nn.Identity(), "fit")
