import logging
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import default_collate

from datamodules.resumption import ResumableDataLoader, resume_point
from datamodules.sampling import EpochSampler
from pl_distill.errors import ConfigError
from pl_distill.losses.baselines import EfficientSAM3Loss, MeanSquaredErrorLoss, RelationalLoss
from pl_distill.losses.direction_then_scale import DirectionThenScaleLoss
from pl_distill.losses.feature_loss import FeatureLoss
from pl_distill.models.sam3 import read_trunk_sha256, write_random_sam3
from pl_distill.models.student_io import load_student
from pl_distill.models.tinyvit_dual import TinyViTDualPyramid
from pl_distill.models.tinyvit_fpn import TinyViTFPN
from pl_distill.modules.distillation import DistillationModule, parameter_groups
from pl_distill.modules.schedules import warmup_cosine

STUDENT = partial(
    TinyViTFPN,
    body="tiny_vit_5m_224",
    embed_dims=[16, 16, 32, 32],
    depths=[1, 1, 1, 1],
    num_heads=[1, 1, 2, 2],
    window_sizes=[7, 4, 2, 1],
    body_size=32,
    fpn_channels=16,
    norm_groups=4,
)
FRAMES = 8


class Maps(LightningDataModule):
    """Random pictures and maps of the teacher's shape; shuffled, resumable, the same at every start."""

    def __init__(self, shape=(32, 8, 8), trunk_sha256=None) -> None:
        super().__init__()
        self.teacher_trunk_sha256 = trunk_sha256
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(FRAMES, 3, 32, 32, generator=generator)
        maps = torch.randn(FRAMES, *shape, generator=generator) + 2
        self.frames = [{"key": str(i), "image": images[i], "teacher_map": maps[i]} for i in range(FRAMES)]

    def train_dataloader(self):
        sampler = EpochSampler([FRAMES], batch_size=2)
        sampler.resume(*resume_point(self.trainer))
        return self._loader(sampler)

    def val_dataloader(self):
        return self._loader(EpochSampler([FRAMES], batch_size=4, training=False))

    def _loader(self, sampler):
        return ResumableDataLoader(self.frames, sampler, collate_fn=default_collate)


class Crash(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyError("power cut")


def build(teacher, **changes):
    return DistillationModule(str(teacher), **{"student": STUDENT, **changes})


def trainer(folder, *, max_steps=4, callbacks=(), **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_steps=max_steps,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        num_sanity_val_steps=0,
        **{**quiet, **options},
    )


def fit(teacher, folder, *, data=None, ckpt_path=None, module=None, **options):
    torch.manual_seed(0)
    module = module or build(teacher)
    runner = trainer(folder, **options)
    runner.fit(module, datamodule=data or Maps(), ckpt_path=ckpt_path)
    return module, runner


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_random_sam3("tiny", tmp_path_factory.mktemp("sam3") / "tiny", seed=0)


@pytest.fixture(scope="module")
def fitted(teacher, tmp_path_factory):
    """A module that was trained for four steps, its trainer, and the checkpoint that was written after them."""
    folder = tmp_path_factory.mktemp("fit")
    module, runner = fit(teacher, folder, callbacks=[ModelCheckpoint(folder, save_last=True)])
    return module, runner, folder / "last.ckpt"


@pytest.fixture(scope="module")
def whole(teacher, tmp_path_factory):
    """A module that was trained for eight steps without a stop."""
    return fit(teacher, tmp_path_factory.mktemp("whole"), max_steps=8)[0]


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


def test_pyramids_are_computed_at_every_nth_step_only(teacher, tmp_path):
    class Counting(DistillationModule):
        pyramids = 0

        def _pyramids(self, features):
            self.pyramids += 1
            return super()._pyramids(features)

    module = Counting(str(teacher), STUDENT, partial(DirectionThenScaleLoss, pyramid_every=3))
    module.gradient_norms_every = 0
    fit(teacher, tmp_path, module=module, limit_val_batches=0, max_steps=6)
    assert module.pyramids == 2 * 2  # at steps 0 and 3, of both maps


def test_pyramids_of_a_share_of_the_images_are_those_of_the_first(teacher, tmp_path):
    seen = []

    class Counting(DistillationModule):
        def _pyramids(self, features):
            seen.append(len(features))
            return super()._pyramids(features)

    module = Counting(str(teacher), STUDENT, partial(DirectionThenScaleLoss, pyramid_share=0.5))
    module.gradient_norms_every = 0
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


def test_the_schedule_by_hand():
    values = [warmup_cosine(step, total=6, warmup=1 / 3, final=0.2) for step in (0, 1, 2, 4, 6, 7)]
    assert values == pytest.approx([0.5, 1.0, 1.0, 0.6, 0.2, 0.2])


@given(st.integers(1, 500), st.floats(0, 1), st.floats(0, 1))
def test_the_schedule_stays_between_its_ends(total, warmup, final):
    values = [warmup_cosine(step, total, warmup, final) for step in range(total + 1)]
    assert all(0 < value <= 1 + 1e-12 or value == final for value in values)
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert all(a >= b - 1e-12 for a, b in zip(values[peak:], values[peak + 1 :], strict=False))


def test_norms_biases_and_tables_do_not_decay(teacher):
    module = build(teacher)
    module.configure_model()
    decayed, free = parameter_groups(module.student)
    names = {id(parameter): name for name, parameter in module.student.named_parameters()}
    assert "weight_decay" not in decayed
    assert free["weight_decay"] == 0
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    free_names = {names[id(parameter)] for parameter in free["params"]}
    assert {"head.1.bias", "laterals.0.1.weight", "body.stages.1.blocks.0.attn.attention_biases"} <= free_names
    assert all(parameter.ndim > 1 for parameter in decayed["params"])


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
