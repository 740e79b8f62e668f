"""What Lightning says to a user of its verbs, and what it does not."""

import logging

import pytest
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from pl_distill.commands.lightning import RecipeCLI, run_lightning
from pl_distill.errors import ConfigError


def test_advertisements_are_not_shown_and_everything_else_is(tmp_path, caplog):
    try:
        run_lightning(["fit", f"--trainer.default_root_dir={tmp_path}"])  # hushes, then finds no recipe
    except ConfigError:
        caplog.clear()
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        Trainer(accelerator="cpu", max_steps=1, default_root_dir=tmp_path).fit(BoringModel())
    assert "GPU available" in caplog.text
    assert "max_steps=1` reached" in caplog.text
    assert "Tip:" not in caplog.text
    assert "litlogger" not in caplog.text


def test_a_time_between_validations_is_refused_of_several_processes(tmp_path):
    words = ["fit", "--config=embedder/pen.yaml", f"--data.folder={tmp_path}", "--trainer.accelerator=cpu"]
    both = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.val_check_interval=00:00:30:00"]
    with pytest.raises(ConfigError, match=r"trainer\.val_check_interval: is a time, expected a number of steps"):
        run_lightning([*words, *both])


def in_a_job_of_slurm(monkeypatch):
    """The variables of the one task of a job."""
    given = {"NTASKS": "1", "JOB_ID": "7", "JOB_NAME": "cache", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in (given | {"NODELIST": "n1"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def test_in_a_job_of_slurm_lightning_requeues_nothing_and_takes_no_weights_from_where_it_did(tmp_path, monkeypatch):
    """Whatever the verb: `predict` would take a trunk for that of the teacher."""
    in_a_job_of_slurm(monkeypatch)
    words = ["fit", "--config=embedder/pen.yaml", f"--data.folder={tmp_path}", "--trainer.accelerator=cpu"]
    words += [f"--trainer.default_root_dir={tmp_path}", "--trainer.devices=1", "--trainer.strategy=auto"]
    built = []
    monkeypatch.setattr(RecipeCLI, "_run_subcommand", lambda cli, _: built.append(cli.trainer))
    run_lightning(words)
    environment = built[0]._accelerator_connector.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue
    (tmp_path / "hpc_ckpt_1.ckpt").touch()
    with pytest.raises(ConfigError, match=r"hpc_ckpt_1\.ckpt: would be loaded in place of this run's weights"):
        run_lightning(words)
