"""The trainer's options for a SLURM job, without one."""

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment

from callbacks.preemption import Preemption
from callbacks.run_state import RunState
from callbacks.standstill import Standstill
from pl_distill.checkpoint_io import WholeCheckpointIO
from pl_distill.commands.lightning import RecipeCLI, run_lightning
from pl_distill.strategies import CPUDeepSpeedStrategy

pytestmark = pytest.mark.smoke


@pytest.mark.parametrize("trainer", ["ddp", "deepspeed_stage2", "deepspeed_stage3"])
def test_a_job_saves_by_our_callback_and_not_by_lightnings_handler(trainer, cached, tmp_path, monkeypatch):
    monkeypatch.setattr(RecipeCLI, "_run_subcommand", lambda *_: None)
    for name, value in {"NODEID": 0, "PROCID": 0, "LOCALID": 0, "NTASKS": 2, "NTASKS_PER_NODE": 2, "JOB_ID": 1}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURM_JOB_NAME", "pl-distill")
    names = ("distill/pen.yaml", f"trainer/{trainer}.yaml", "trainer/options/slurm.yaml")
    words = [word for name in names for word in ("--config", name)]
    here = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.sync_batchnorm=false"]
    here += ["--trainer.precision=32-true", f"--trainer.default_root_dir={tmp_path}"]
    here += ["--trainer.callbacks.limit_s=77"]  # as slurm/train.sbatch has it
    run = run_lightning(["fit", *words, *here, *cached("tiny").options])
    environment = run.trainer._accelerator_connector.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert environment.auto_requeue is False
    kinds = [type(one) for one in run.trainer.callbacks]
    assert {Preemption, RunState} <= set(kinds)
    assert kinds.index(Preemption) > kinds.index(RunState), "after every callback that may change the weights"
    assert [one.limit_s for one in run.trainer.callbacks if isinstance(one, Standstill)] == [77]
    if trainer == "ddp":
        assert isinstance(run.trainer.strategy.checkpoint_io, WholeCheckpointIO)  # of every trainer, see below
    else:
        assert isinstance(run.trainer.strategy, CPUDeepSpeedStrategy)
        assert run.trainer.strategy.zero_stage_3 is (trainer == "deepspeed_stage3")


@pytest.mark.parametrize("trainer", ["cpu", "ablation_cpu", "ddp"])
def test_a_checkpoint_is_whole_or_absent_without_slurm_too(trainer, cached, tmp_path, monkeypatch):
    monkeypatch.setattr(RecipeCLI, "_run_subcommand", lambda *_: None)
    words = ["--config", "distill/pen.yaml", "--config", f"trainer/{trainer}.yaml", "--trainer.accelerator=cpu"]
    words += ["--trainer.devices=1", "--trainer.sync_batchnorm=false", f"--trainer.default_root_dir={tmp_path}"]
    run = run_lightning(["fit", *words, *cached("tiny").options])
    assert isinstance(run.trainer.strategy.checkpoint_io, WholeCheckpointIO)
