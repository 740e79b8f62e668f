from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from datamodules.preprocessing import Preprocessing
from pl_distill.errors import ConfigError
from pl_distill.losses.baselines import EfficientSAM3Loss, MeanSquaredErrorLoss, RelationalLoss
from pl_distill.losses.direction_then_scale import DirectionThenScaleLoss
from pl_distill.losses.feature_loss import FeatureLoss
from pl_distill.models.sam3 import load_preprocessing, read_trunk_sha256, trunk_settings
from pl_distill.models.sam3_load import load_config
from pl_distill.models.student_io import load_student
from pl_distill.models.tinyvit_dual import TinyViTDualPyramid
from pl_distill.modules.distillation import DistillationModule
from pl_distill.modules.gradient_meter import GradientMeter
from pl_distill.modules.schedules import warmup_cosine
from tests.pl_distill.modules.distilling import STUDENT, Maps, build, fit, trainer


def test_the_students_map_has_the_shape_of_the_teachers(teacher):
    module = build(teacher)
    module.configure_model()
    assert module(torch.randn(2, 3, 112, 112)).shape == (2, 32, 8, 8)


def test_a_student_that_was_built_is_kept(teacher):
    module = build(teacher)
    module.configure_model()
    student = module.student
    module.configure_model()
    assert module.student is student


def test_training_brings_the_student_nearer_to_the_teacher(teacher, tmp_path):
    early = fit(teacher, tmp_path, max_steps=2, check_val_every_n_epoch=None, val_check_interval=2)[1]
    late = fit(teacher, tmp_path, max_steps=20, check_val_every_n_epoch=None, val_check_interval=20)[1]
    before, after = early.callback_metrics, late.callback_metrics
    assert after["val/loss"] < 0.8 * before["val/loss"]
    assert after["val/cosine"] > before["val/cosine"]
    assert after["val/relative_error"] < before["val/relative_error"]


def test_every_term_is_logged_for_both_stages(fitted):
    terms = {"loss", "direction", "value", "pyramid_direction", "pyramid_value"}
    agreement = {"cosine", "relative_error", "centred_relative_error"}
    expected = {f"train/{name}" for name in terms | {"learning_rate"}} | {f"val/{name}" for name in terms | agreement}
    levels = [f"{neck}_{size}x" for neck in ("detector", "tracker") for size in (1, 2, 4)]
    expected |= {f"val_levels/{measure}_{level}" for measure in ("cosine", "relative_error") for level in levels}
    expected |= {f"gradient_{kind}/{name}" for kind in ("norm", "share") for name in terms - {"loss"}}
    assert set(fitted[1].callback_metrics) == expected


def test_only_the_student_is_trained_and_the_necks_stay_as_they_were(teacher, fitted):
    module, _, _ = fitted
    trained = {id(parameter) for group in module.optimizers().param_groups for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in module.student.parameters()}
    assert not any(parameter.requires_grad for parameter in module.necks.parameters())
    fresh = build(teacher)
    fresh.setup("fit")
    for ours, theirs in zip(module.necks.parameters(), fresh.necks.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_pyramids_of_a_share_of_the_images_are_those_of_the_first(teacher, tmp_path):
    seen = []

    class Counting(DistillationModule):
        def _pyramids(self, features):
            seen.append(len(features))
            return super()._pyramids(features)

    module = Counting(str(teacher), STUDENT, partial(DirectionThenScaleLoss, pyramid_share=0.5))
    module.gradient_meter.every = 0
    fit(teacher, tmp_path, module=module, limit_val_batches=0, max_steps=2)
    assert seen == [1] * 4  # one of two images, of both maps
    batch = next(iter(Maps().val_dataloader()))
    module.eval()
    whole, part = (module.compare(batch, level_images=images) for images in (4, 1))
    for ours, theirs in zip(whole.student_levels, part.student_levels, strict=True):
        torch.testing.assert_close(ours[:1], theirs)
    assert torch.equal(whole.student_map, part.student_map)


def test_measuring_gradients_does_not_change_the_training(teacher, whole, tmp_path):
    measured, _ = fit(teacher, tmp_path, module=build(teacher, gradient_norms_every=2), max_steps=8)
    assert all(
        torch.equal(value, whole.student.state_dict()[name]) for name, value in measured.student.state_dict().items()
    )


def test_gradients_are_measured_once_in_a_step_of_several_batches(teacher, tmp_path):
    steps = []

    class Counting(GradientMeter):
        def measure(self, compared, progress):
            steps.append(progress.step)
            super().measure(compared, progress)

    module = build(teacher)
    module.gradient_meter = Counting(module.loss, module._pyramids, 2)
    fit(teacher, tmp_path, module=module, max_steps=4, accumulate_grad_batches=2, limit_val_batches=0)
    assert steps == [0, 2]


@pytest.mark.parametrize("loss", [MeanSquaredErrorLoss, EfficientSAM3Loss, RelationalLoss])
def test_a_baseline_trains_the_same_student(loss, teacher, tmp_path):
    module, runner = fit(teacher, tmp_path, module=build(teacher, loss=loss), max_steps=2)
    shares = [value for name, value in runner.callback_metrics.items() if name.startswith("gradient_share/")]
    assert len(shares) == len(module.loss.weights)
    assert sum(shares).item() == pytest.approx(1, rel=1e-4)


def test_a_loss_computes_its_products_in_float32_under_mixed_precision(teacher, tmp_path):
    kinds = set()

    class Products(MeanSquaredErrorLoss):
        def terms(self, student, teacher):
            kinds.add((student.flatten(2) @ teacher.flatten(2).mT).dtype)
            return super().terms(student, teacher)

    fit(
        teacher,
        tmp_path,
        module=DistillationModule(str(teacher), STUDENT, Products),
        max_steps=1,
        precision="bf16-mixed",
    )
    assert kinds == {torch.float32}


def test_training_values_are_means_over_recent_steps(teacher, tmp_path):
    class Counting(FeatureLoss):
        def weights_at(self, progress):
            return {}

        def forward(self, student, teacher, student_pyramids=None, teacher_pyramids=None, progress=None):
            loss = 0 * student.sum() + (progress.step if progress else 0)
            return {"loss": loss, **({"rare": loss} if progress and progress.step == 1 else {})}

    module = build(teacher, loss=Counting, gradient_norms_every=0)
    _, runner = fit(teacher, tmp_path, module=module, max_steps=4, log_every_n_steps=1)
    assert runner.callback_metrics["train/loss"].item() == pytest.approx((0 + 1 + 2 + 3) / 4)
    assert runner.callback_metrics["train/rare"].item() == 1  # is seen at steps that do not compute it, too


def test_the_learning_rate_rises_and_falls(teacher, tmp_path):
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, *_):
            seen.append(trainer.callback_metrics["train/learning_rate"].item())

    fit(teacher, tmp_path, module=build(teacher, warmup=0.2, final_lr=0.1), max_steps=10, callbacks=[Watch()])
    expected = [1e-3 * warmup_cosine(step, 10, 0.2, 0.1) for step in range(10)]
    assert seen == pytest.approx(expected, rel=1e-5)


def test_a_run_without_a_number_of_steps_is_refused(teacher, tmp_path):
    with pytest.raises(ConfigError, match=r"trainer\.max_steps: is -1"):
        fit(teacher, tmp_path, max_steps=-1, max_epochs=1)


def test_a_cache_of_another_teacher_is_refused(teacher, tmp_path):
    fit(teacher, tmp_path, data=Maps(trunk_sha256=read_trunk_sha256(teacher)), max_steps=1)
    stranger = Maps(trunk_sha256="ab12")
    with pytest.raises(ConfigError, match=r"model\.teacher: is .*tiny, whose trunk has another hash"):
        fit(teacher, tmp_path, data=stranger, max_steps=1)
    with pytest.raises(ConfigError, match=r"model\.teacher: is .*tiny, whose trunk has another hash"):
        trainer(tmp_path).validate(build(teacher), datamodule=stranger)


def test_a_cache_of_a_trunk_that_computes_something_else_with_the_same_weights_is_refused(teacher, tmp_path):
    own = trunk_settings(load_config(teacher))
    fit(teacher, tmp_path, data=Maps(trunk_settings=own), max_steps=1)
    found = rf"model\.teacher: is .*tiny, whose trunk has window_size {own['window_size']}, expected window_size 9"
    with pytest.raises(ConfigError, match=found):
        fit(teacher, tmp_path, data=Maps(trunk_settings={**own, "window_size": 9}), max_steps=1)


def test_a_cache_of_another_preprocessing_is_refused(teacher, tmp_path):
    fit(teacher, tmp_path, data=Maps(preprocessing=load_preprocessing(teacher)), max_steps=1)
    stranger = Maps(preprocessing=Preprocessing(112, std=(0.25, 0.25, 0.25)))
    found = r"model\.teacher: is .*tiny, whose preprocessing is .*'std': \[0\.5.*expected .*'std': \[0\.25"
    with pytest.raises(ConfigError, match=found):
        fit(teacher, tmp_path, data=stranger, max_steps=1)
    with pytest.raises(ConfigError, match=found):
        trainer(tmp_path).validate(build(teacher), datamodule=stranger)


def test_maps_of_another_shape_are_refused_with_both_shapes(teacher, tmp_path):
    with pytest.raises(ConfigError, match=r"\(2, 32, 8, 8\).*expected \(2, 16, 8, 8\)"):
        fit(teacher, tmp_path, data=Maps(shape=(16, 8, 8)), max_steps=1)


def test_a_student_of_pyramids_learns_both_and_brings_no_necks(teacher, tmp_path):
    student = partial(TinyViTDualPyramid, **STUDENT.keywords, tower_depths=[1, 1, 2])
    module = build(teacher, student=student, target="pyramids", gradient_norms_every=2)
    runner = fit(teacher, tmp_path, module=module, max_steps=4)[1]
    metrics = runner.callback_metrics
    assert {"train/pyramid_direction", "train/pyramid_value", "val/cosine"} <= set(metrics)
    levels = [value.item() for name, value in metrics.items() if name.startswith("val_levels/relative_error")]
    assert metrics["val/relative_error"].item() == pytest.approx(sum(levels) / 6, rel=1e-5)
    module.save_pretrained(tmp_path / "student")
    student = load_student(tmp_path / "student")
    assert student.detector_neck is None
    images = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        ours, theirs = student(images), module.student.eval()(images)
    assert all(torch.equal(a, b) for a, b in zip(ours.detector + ours.tracker, theirs[0] + theirs[1], strict=True))


def test_a_compiled_student_has_the_names_and_answers_of_a_plain_one(teacher, tmp_path):
    plain, compiled = (build(teacher, compile_backend=backend) for backend in (None, "eager"))
    for module in (plain, compiled):
        torch.manual_seed(0)
        module.configure_model()
        module.eval()
    assert compiled.student._compiled_call_impl is not None
    assert list(compiled.state_dict()) == list(plain.state_dict())
    images = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), plain(images))
    compiled.student.save_pretrained(tmp_path)
    load_student(tmp_path)


def test_a_target_that_the_student_does_not_give_is_refused(teacher):
    with pytest.raises(ConfigError, match=r"model\.target: is pyramids, but TinyViTFPN gives the trunk"):
        build(teacher, target="pyramids").configure_model()
