import logging
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from callbacks.student_average import StudentAverage
from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.losses.direction_then_scale import DirectionThenScaleLoss
from pl_distill.models.student_io import load_student
from pl_distill.modules.distillation import ADAMW
from tests.pl_distill.modules.distilling import STUDENT, Maps, build, fit, trainer


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


def told_of(codec):
    data = Maps()
    data.data_identity = {"codec": codec}
    return data


@pytest.fixture(scope="module")
def stopped(teacher, tmp_path_factory):
    """A checkpoint of two steps, on maps of which the data tell how they are stored."""
    folder = tmp_path_factory.mktemp("stopped")
    fit(teacher, folder, max_steps=2, data=told_of("float16"), callbacks=[ModelCheckpoint(folder, save_last=True)])
    return folder / "last.ckpt"


@pytest.mark.parametrize(
    ("changes", "codec", "found", "expected"),
    [
        ({"optimizer": partial(ADAMW, lr=2e-3)}, "float16", "model.optimizer lr 0.001", "model.optimizer lr 0.002"),
        ({"optimizer": torch.optim.SGD}, "float16", "model.optimizer class AdamW", "model.optimizer class SGD"),
        (
            {"loss": partial(DirectionThenScaleLoss, value_weight=3.0)},
            "float16",
            'model.loss weights {"direction": 1.0, "pyramid_direction": 1.0, "value": 1.0',
            '"value": 3.0',
        ),
        ({}, "int8", "data codec float16", "data codec int8"),
    ],
)
def test_a_run_goes_on_only_as_the_training_that_it_was(changes, codec, found, expected, teacher, stopped, tmp_path):
    with pytest.raises(ConfigError) as caught:
        fit(teacher, tmp_path, data=told_of(codec), module=build(teacher, **changes), ckpt_path=stopped)
    assert caught.value.where == str(stopped)
    assert found in caught.value.found
    assert expected in caught.value.expected
    assert "Go on with the old values" in caught.value.fix


def test_gradients_are_clipped_as_before(teacher, stopped, tmp_path):
    options = {"data": told_of("float16"), "gradient_clip_val": 0.5, "max_steps": 3}
    with pytest.raises(ConfigError, match=r"with trainer gradient_clip_val None, expected .* 0\.5 as in this run"):
        fit(teacher, tmp_path, ckpt_path=stopped, **options)
    checkpoint = torch.load(stopped, weights_only=True)
    del checkpoint["training_identity"]["trainer"]  # of a version that did not tell
    torch.save(checkpoint, tmp_path / "old.ckpt")
    module, _ = fit(teacher, tmp_path, ckpt_path=tmp_path / "old.ckpt", **options)
    assert module.global_step == 3


def test_a_run_whose_weights_are_averaged_goes_on_with_an_average(teacher, tmp_path):
    keep = ModelCheckpoint(tmp_path, save_last=True)
    fit(teacher, tmp_path, max_steps=2, callbacks=[StudentAverage(), keep])
    last = tmp_path / "last.ckpt"
    with pytest.raises(ConfigError, match=r"of their average, expected StudentAverage .*options/average\.yaml"):
        fit(teacher, tmp_path, max_steps=3, ckpt_path=last)
    module, _ = fit(teacher, tmp_path, max_steps=3, ckpt_path=last, callbacks=[StudentAverage()])
    assert module.global_step == 3
    assert trainer(tmp_path).validate(build(teacher), datamodule=Maps(), ckpt_path=last, verbose=False)


def test_steps_schedule_and_what_only_computes_otherwise_may_change(teacher, stopped, tmp_path):
    changed = build(teacher, optimizer=partial(ADAMW, foreach=True), warmup=0.2, final_lr=0.1, gradient_norms_every=0)
    module, _ = fit(teacher, tmp_path, data=told_of("float16"), module=changed, ckpt_path=stopped, max_steps=3)
    assert module.global_step == 3


def test_a_checkpoint_that_does_not_say_how_it_was_trained_is_taken(teacher, stopped, tmp_path):
    checkpoint = torch.load(stopped, weights_only=True)
    del checkpoint["training_identity"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    changed = build(teacher, optimizer=partial(ADAMW, lr=2e-3))
    module, _ = fit(teacher, tmp_path, module=changed, ckpt_path=tmp_path / "old.ckpt", max_steps=3)
    assert module.global_step == 3


def test_a_student_that_sees_another_size_is_refused_though_its_tensors_fit(teacher, stopped):
    """As are all settings that change what the same weights answer; those of training alone may change."""
    larger = build(teacher, student=partial(STUDENT, body_size=64, drop_path_rate=0.1))
    larger.configure_model()
    larger.load_state_dict(torch.load(stopped, weights_only=True)["state_dict"], strict=True)
    with pytest.raises(CheckpointError, match="of a student with body_size 32, expected body_size 64 as the recipe"):
        trainer(stopped.parent).validate(larger, datamodule=told_of("float16"), ckpt_path=stopped, verbose=False)
    dropping = build(teacher, student=partial(STUDENT, drop_path_rate=0.1))
    assert trainer(stopped.parent).validate(dropping, datamodule=told_of("float16"), ckpt_path=stopped, verbose=False)


def test_validation_asks_for_the_student_alone(teacher, stopped):
    changed = build(teacher, optimizer=torch.optim.SGD, loss=partial(DirectionThenScaleLoss, value_weight=3.0))
    assert trainer(stopped.parent).validate(changed, datamodule=told_of("int8"), ckpt_path=stopped, verbose=False)


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
