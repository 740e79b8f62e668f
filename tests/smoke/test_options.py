"""Every option in configs/distill/options goes over the pen's recipe and trains."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pl_distill.commands.lightning import run_lightning
from pl_distill.deploy.envelope import load_envelope
from pl_distill.errors import ConfigError
from pl_distill.models.sam3_heads import load_heads, overlap
from pl_distill.models.student_io import load_student

pytestmark = pytest.mark.smoke

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_averaged_weights_are_what_is_kept_and_masks_are_compared(cached, tmp_path):
    data = cached("tiny")
    options = ["distill/options/average.yaml", "distill/options/mask_agreement.yaml", "distill/options/envelope.yaml"]
    words = [word for name in ("distill/pen.yaml", "trainer/smoke.yaml", *options) for word in ("--config", name)]
    small = ["--data.batch_size=2", "--data.num_workers=0", "--trainer.max_steps=4"]
    small.append(f"--trainer.default_root_dir={tmp_path}")
    run = run_lightning(["fit", *words, *data.options, *small])
    names = {type(callback).__name__ for callback in run.trainer.callbacks}
    assert {"StepProgress", "FeaturePreview", "StudentAverage", "MaskAgreement", "PeakVRAM", "JetsonEnvelope"} <= names
    run.model.eval()
    with torch.no_grad():
        seen = run.model.compare(next(iter(run.datamodule.val_dataloader())), level_images=1)
    heads = load_heads(data.teacher, "pig")
    masks = [heads([level[:1] for level in side[:3]]) for side in (seen.student_levels, seen.teacher_levels)]
    agreement = overlap(*masks).item()
    assert 0 < agreement < 0.999, "the student has not become its teacher in four steps"
    assert run.trainer.callback_metrics["val/mask_agreement"].item() == pytest.approx(agreement, rel=1e-4)

    events = EventAccumulator(str(tmp_path)).Reload()
    predicted, headroom = (events.Scalars(f"envelope/{name}_gib") for name in ("predicted", "headroom"))
    assert 0.1 < predicted[0].value < 0.5  # the embedder's weights alone are 0.08
    assert headroom[0].value == pytest.approx(load_envelope("orin-nx-16gb").budget_gib - predicted[0].value, rel=1e-5)

    phases = json.loads((tmp_path / "peak_memory.json").read_text())["phases"]
    assert phases["fit"]["rss_bytes"]["largest"] > 0

    path = tmp_path / "checkpoints" / "last.ckpt"
    student, checkpoint = load_student(path), torch.load(path, weights_only=True)
    ours, kept = student.state_dict(), run.model.student.state_dict()
    assert all(torch.equal(ours[name], kept[name]) for name in kept)
    training = checkpoint["current_model_state"]
    assert not all(torch.equal(ours[name], training[f"student.{name}"]) for name in ours)


def test_a_system_that_cannot_fit_ends_the_fit_before_its_first_step(cached, tmp_path):
    profile = yaml.safe_load((CONFIGS / "envelope/orin-nx-16gb.yaml").read_text())
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(profile | {"name": "Toy", "memory_gib": 0.01, "reserve_gib": {}}))
    words = ["--config=distill/pen.yaml", "--config=trainer/smoke.yaml", "--config=distill/options/envelope.yaml"]
    toy = [f"--trainer.callbacks.device={tmp_path / 'toy.yaml'}", "--trainer.callbacks.action=fail"]
    with pytest.raises(ConfigError, match="Toy: would have to hold"):
        run_lightning(["fit", *words, *toy, *cached("tiny").options, f"--trainer.default_root_dir={tmp_path}"])
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow  # minutes of compiling
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="inductor needs a C++ compiler")
def test_a_compiled_student_trains_and_reloads(cached, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    data, plain = cached("tiny"), tmp_path / "plain"
    words = ["fit", "--config", "distill/pen.yaml", "--config", "trainer/smoke.yaml", *data.options]
    words += ["--data.batch_size=2", "--data.num_workers=0", "--trainer.max_steps=2"]
    words.append("--trainer.limit_val_batches=0")  # which would be compiled once more
    expected = run_lightning([*words, f"--trainer.default_root_dir={plain}"]).trainer.callback_metrics
    compiled = ["--config", "distill/options/compile.yaml", f"--trainer.default_root_dir={tmp_path}"]
    run = run_lightning([*words, *compiled])
    assert run.model.student._compiled_call_impl is not None
    assert list((tmp_path / "inductor").rglob("*.so"))
    loss = run.trainer.callback_metrics["train/loss"]
    torch.testing.assert_close(loss, expected["train/loss"], rtol=1e-3, atol=1e-4)
    student = load_student(tmp_path / "checkpoints" / "last.ckpt").state_dict()
    kept = run.model.student.state_dict()
    assert student.keys() == kept.keys()
    assert all(torch.equal(student[name], kept[name]) for name in kept)


def test_every_option_is_tried_here():
    folder = CONFIGS / "distill/options"
    assert {path.stem for path in folder.glob("*.yaml")} == {"average", "mask_agreement", "envelope", "compile"}
