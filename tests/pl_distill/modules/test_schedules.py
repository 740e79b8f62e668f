from functools import partial

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Trainer

from pl_distill.cli import main
from pl_distill.commands.parsing import recipes_folder
from pl_distill.errors import ConfigError
from pl_distill.modules.behaviour import BehaviourModule
from pl_distill.modules.distillation import DistillationModule
from pl_distill.modules.embedder import EmbedderModule
from pl_distill.modules.sam3_detector import Sam3DetectorModule
from pl_distill.modules.sam3_tracker import Sam3TrackerModule
from pl_distill.modules.schedules import trapezoid_schedule, warmup_cosine

RECIPES = [
    path
    for folder in ("behaviour", "distill", "embedder", "finetune", "pen_teacher")
    for path in sorted((recipes_folder() / folder).glob("*.yaml"))
    if path.stem != "card"
]


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


def test_the_first_step_of_a_longer_run_has_the_rate_of_the_longer_schedule():
    def build(steps):
        trainer = Trainer(accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
        schedule = trapezoid_schedule(trainer, optimizer, warmup=0, cooldown=0.5)
        return optimizer, schedule["lr_scheduler"]["scheduler"]

    optimizer, scheduler = build(4)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0
    longer, its_scheduler = build(8)
    longer.load_state_dict(optimizer.state_dict())  # in Lightning's order
    its_scheduler.load_state_dict(scheduler.state_dict())
    assert longer.param_groups[0]["lr"] == 2.0


def test_epochs_alone_are_no_end_for_a_schedule():
    trainer = Trainer(accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    with pytest.raises(ConfigError, match=r"trainer\.max_steps: is -1.*trainer\.max_epochs alone does not do"):
        trapezoid_schedule(trainer, optimizer, warmup=1, cooldown=0.5)


@pytest.mark.parametrize("value", [200, 1.5, -1, float("nan")])
@pytest.mark.parametrize("name", ["warmup", "final_lr"])
def test_a_part_out_of_its_range_is_refused_by_a_distillation(name, value):
    with pytest.raises(ConfigError, match=f"^model.{name}: is {value}, expected a part of .*, 0 to 1"):
        DistillationModule("none", **{name: value})


@pytest.mark.parametrize(
    "build", [BehaviourModule, EmbedderModule, partial(Sam3DetectorModule, "pen"), partial(Sam3TrackerModule, "pen")]
)
@pytest.mark.parametrize(("name", "value"), [("warmup", -1), ("cooldown", 1.5), ("cooldown", -0.1)])
def test_a_value_out_of_its_range_is_refused_by_the_trainings_that_are_exported(build, name, value):
    with pytest.raises(ConfigError, match=f"^model.{name}: is {value}, expected a"):
        build(**{name: value})


def test_the_command_line_hears_that_a_warmup_is_no_number_of_steps(tmp_path, capsys):
    words = ["fit", "--config", "distill/pen.yaml", "--model.warmup=200", f"--model.teacher={tmp_path / 'none'}"]
    words += [f"--data.shards={tmp_path / 'none'}"]
    assert main([*words, f"--trainer.default_root_dir={tmp_path}"]) == 1
    assert "error: model.warmup: is 200.0, expected a part of all steps, 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_training_recipe_says_its_steps(path):
    assert yaml.safe_load(path.read_text())["trainer"]["max_steps"] > 0
