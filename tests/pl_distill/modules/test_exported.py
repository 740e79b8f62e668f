"""No training ends without its model: who takes away the callback that writes it is told so before the first step."""

import pytest

from pl_distill.cli import main

RECIPES = {
    "finetune/detector.yaml": ["--data.shards=none"],
    "finetune/tracker.yaml": ["--data.shards=none"],
    "pen_teacher/detector.yaml": [],
    "pen_teacher/tracker.yaml": [],
    "embedder/pen.yaml": [],
    "behaviour/pen.yaml": ["--data.features=none"],
    "behaviour/edinburgh.yaml": ["--data.features=none"],
}


def fit(capsys, tmp_path, *words):
    assert main(["fit", *words, f"--trainer.default_root_dir={tmp_path / 'run'}"]) == 1
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_trainer_file_over_a_recipe_that_has_one_is_refused(recipe, tmp_path, capsys):
    words = ["--config", recipe, "--config", "trainer/cpu.yaml", "--trainer.strategy=auto", *RECIPES[recipe]]
    said = fit(capsys, tmp_path, *words)
    assert not (tmp_path / "run").exists()
    assert said.startswith("error: trainer.callbacks: have no callbacks.sam3_export.Sam3Export")
    assert "--trainer.callbacks+ callbacks.sam3_export.Sam3Export" in said


def test_with_the_callback_given_back_the_data_are_looked_for(tmp_path, capsys):
    words = ["--config", "behaviour/pen.yaml", "--config", "trainer/cpu.yaml", f"--data.features={tmp_path / 'none'}"]
    said = fit(capsys, tmp_path, *words, "--trainer.callbacks+", "callbacks.sam3_export.Sam3Export")
    assert f"{tmp_path / 'none'}" in said
    assert "is not there" in said


def test_weights_that_are_divided_among_processes_would_be_written_empty(tmp_path, capsys):
    words = ["--config", "embedder/pen.yaml", "--config", "trainer/deepspeed_stage3.yaml", "--trainer.accelerator=cpu"]
    words += ["--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.precision=32-true"]
    said = fit(capsys, tmp_path, *words, "--trainer.callbacks+", "callbacks.sam3_export.Sam3Export")
    assert said.startswith("error: trainer.strategy: is ZeRO-3")
    assert "--trainer.strategy ddp" in said
    assert not (tmp_path / "run").exists()


def test_a_recipe_for_a_gpu_is_told_the_options_for_a_cpu_and_not_another_trainer_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    said = fit(capsys, tmp_path, "--config", "finetune/detector.yaml", "--data.shards=none")
    assert "error: trainer: cannot be built (" in said
    assert "--trainer.accelerator cpu --trainer.strategy auto" in said
    assert "trainer/cpu.yaml" not in said
