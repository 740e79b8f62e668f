"""Two processes on CPUs with DeepSpeed ZeRO and with DDP; no GPU and no compiler."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pl_distill.cli import main
from pl_distill.errors import CheckpointError
from pl_distill.models.student_io import load_student
from pl_distill.strategies import CPUDeepSpeedStrategy

pytestmark = pytest.mark.smoke
STRATEGIES = ["zero1", "zero2", "zero3", "ddp"]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CXX": "/bin/false",  # a compiler that fails, so that an op built at run time would be seen
    "MASTER_ADDR": "127.0.0.1",
    "PYTHONPATH": str(Path(__file__).parent),
}


@pytest.fixture(scope="module")
def trained(cached, tmp_path_factory):
    """Each strategy's trainings, one left alone and one that was asked to leave in mid-epoch; one start for all."""
    out = tmp_path_factory.mktemp("zero")
    script = Path(__file__).with_name("zero_stages.py")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, out]
    words += [",".join(STRATEGIES), *cached("tiny").options]
    ran = subprocess.run(words, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-6000:]
    return out


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_training_that_leaves_in_mid_epoch_ends_like_one_left_alone(name, trained):
    both = [json.loads((trained / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]
    for found in both:
        assert found["left_at"] == 3
        assert found["exit_code"] == 75
        assert found["val_loss"][0] == found["val_loss"][1]
        assert found["straggler_ratio"] >= 1
        assert found["statistics_equal"], "BatchNorm's running statistics, on this rank"
    assert both[0]["statistics"] == both[1]["statistics"], "the same on both ranks"
    assert both[0]["val_loss"] == both[1]["val_loss"]
    alone, left = (
        load_student(trained / name / run / "checkpoints/last.ckpt", trust_pickles=True) for run in ("alone", "left")
    )
    theirs = left.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in alone.state_dict().items())
    state = json.loads((trained / name / "left" / "run_state.json").read_text())
    assert (state["state"], state["step"], state["starts"]) == ("done", 6, 2)


def test_every_stage_of_zero_starts_with_the_same_weights_and_trains_alike(trained):
    one, two, three = (json.loads((trained / f"zero{stage}-0.json").read_text())["val_loss"][0] for stage in (1, 2, 3))
    assert one == two
    assert three == pytest.approx(two, rel=2e-3), "sums in another order; another initialisation made it 0.013"


@pytest.mark.parametrize("name", STRATEGIES)
def test_all_starts_of_a_run_are_one_curve(name, trained):
    def curve(run, tag):
        seen = EventAccumulator(str(trained / name / run)).Reload()
        return [(one.step, one.value) for one in seen.Scalars(tag)]

    assert [step for step, _ in curve("left", "train/learning_rate")] == [0, 1, 2, 3, 4, 5]
    assert curve("left", "train/learning_rate") == curve("alone", "train/learning_rate")
    assert curve("left", "val/loss") == curve("alone", "val/loss")
    assert [step for step, _ in curve("left", "val/loss")] == [1, 3, 5]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_checkpoint_becomes_one_file_that_loads_strictly_and_gives_the_same(name, trained, tmp_path, capsys):
    checkpoint = trained / name / "alone" / "checkpoints" / "last.ckpt"
    assert main(["convert", "--checkpoint", str(checkpoint), "--out", str(tmp_path)]) == 0
    assert "parameters in student.safetensors" in capsys.readouterr().out
    direct, converted = load_student(checkpoint, trust_pickles=True), load_student(tmp_path)
    direct.load_state_dict(load_file(tmp_path / "student.safetensors"), strict=True)
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(direct(images), converted(images))


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3"])
def test_no_part_of_a_checkpoint_holds_the_teacher(name, trained):
    folder = trained / name / "alone" / "checkpoints" / "last.ckpt" / "checkpoint"
    assert len(list(folder.glob("*zero_pp_rank_*_optim_states.pt"))) == 2  # each process writes its part
    for path in folder.glob("*model_states.pt"):
        content = torch.load(path, weights_only=False)
        assert all(key.startswith("student.") for key in content["module"])
        assert not any("neck" in key for key in content["module"])
    student = load_student(folder.parent, trust_pickles=True)
    size = sum(path.stat().st_size for path in folder.glob("*.pt"))
    weights = 4 * sum(parameter.numel() for parameter in student.parameters())
    assert size < 8 * weights, "weights, their copy in float32, two moments, and small things"


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3"])
def test_a_checkpoint_of_two_processes_is_refused_by_one(name, trained):
    strategy = CPUDeepSpeedStrategy(stage=int(name[-1]))
    Trainer(accelerator="cpu", devices=1, strategy=strategy, logger=False)
    with pytest.raises(CheckpointError, match="was written by 2 processes, expected 1 as in this run"):
        strategy.load_checkpoint(trained / name / "alone" / "checkpoints" / "last.ckpt")


def test_a_checkpoint_of_zero3_is_validated_in_its_fit_alone(trained, capsys):
    run = trained / "zero3" / "alone"
    words = ["validate", "--config", str(run / "config.yaml"), f"--trainer.default_root_dir={run}", "--ckpt_path=last"]
    assert main([*words, "--trainer.devices=1"]) == 1
    said = capsys.readouterr().err
    assert "is to be validated with ZeRO-3, which DeepSpeed loads into a training only" in said
    assert "pl-distill convert" in said
