import logging

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from pl_distill.models.student_io import load_student
from tests.pl_distill.modules.distilling import Maps, build, fit, trainer


class Crash(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyError("power cut")


def test_the_checkpoint_holds_the_student_and_nothing_of_the_teacher(fitted):
    module, _, path = fitted
    checkpoint = torch.load(path, weights_only=True)
    assert set(checkpoint["state_dict"]) == {f"student.{name}" for name in module.student.state_dict()}
    assert not any("neck" in name for name in checkpoint["state_dict"])
    assert checkpoint["student"]["teacher"] == module.teacher
    assert checkpoint["student"]["init_args"]["out_channels"] == 32


def test_a_student_read_from_the_checkpoint_answers_the_same(fitted):
    module, _, path = fitted
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        assert torch.equal(load_student(path)(images), module.student.eval()(images))


def test_a_saved_student_brings_its_necks_along(fitted, tmp_path):
    module, _, _ = fitted
    module.save_pretrained(tmp_path)
    student = load_student(tmp_path)
    images = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        assert torch.equal(student(images), module.student.eval()(images))
    assert student.detector_neck is not None
    ours, theirs = student.tracker_neck.state_dict(), module.necks.tracker_neck.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert module.student.detector_neck is None  # the one in training is left alone


@pytest.mark.parametrize("step", [3, 4, 6])  # in the first epoch of four steps, at its end, in the second
def test_a_run_that_dies_and_is_resumed_ends_with_the_same_weights(step, teacher, whole, tmp_path):
    each_step = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(KeyError, match="power cut"):
        fit(teacher, tmp_path, max_steps=8, callbacks=[each_step, Crash(step)])
    resumed, _ = fit(teacher, tmp_path, max_steps=8, ckpt_path=tmp_path / f"step={step}.ckpt")
    assert all(
        torch.equal(value, whole.student.state_dict()[name]) for name, value in resumed.student.state_dict().items()
    )


def test_random_weights_are_announced_but_not_when_a_run_goes_on(teacher, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "pl_distill"):
        fit(teacher, tmp_path, max_steps=1, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
        assert "TinyViTFPN starts from RANDOM weights" in caplog.text
        caplog.clear()
        fit(teacher, tmp_path, max_steps=2, ckpt_path=tmp_path / "last.ckpt")
        assert "RANDOM" not in caplog.text


def test_validation_alone_gives_what_the_fit_gave(teacher, fitted):
    _, runner, path = fitted
    again = trainer(path.parent).validate(build(teacher), datamodule=Maps(), ckpt_path=path, verbose=False)
    for name, value in again[0].items():
        assert value == pytest.approx(runner.callback_metrics[name].item(), rel=1e-5), name
