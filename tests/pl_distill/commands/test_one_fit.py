"""Two trainings in one folder would write each other's checkpoints: a job that is submitted again may meet itself."""

import json
import subprocess
import sys
import threading
import time

import pytest

from datamodules.locks import held
from pl_distill.cli import main
from pl_distill.commands import one_fit
from pl_distill.commands.one_fit import LOCK, alone_in
from pl_distill.errors import ConfigError


def test_the_second_is_refused_by_the_name_of_the_first_and_has_its_turn_afterwards(tmp_path):
    state = {"host": "n7", "step": 120, "slurm": {"job_id": "42"}}
    (tmp_path / "run_state.json").write_text(json.dumps(state))
    with alone_in(tmp_path), pytest.raises(ConfigError) as caught, alone_in(tmp_path, patience_s=0):
        pytest.fail("two at a time")
    assert caught.value.found == "is written by another training (on n7, job 42, step 120)"
    (tmp_path / "run_state.json").write_text("{")
    with alone_in(tmp_path), pytest.raises(ConfigError, match="is written by another training, expected one at a time"):
        alone_in(tmp_path, patience_s=0).__enter__()
    with alone_in(tmp_path, patience_s=0):
        assert (tmp_path / LOCK).exists()


def test_the_end_of_a_killed_one_is_waited_for(tmp_path):
    """What loads its batches lives on for seconds, and holds the lock that it was born with."""
    code = f"""
import os, sys, time
sys.path.insert(0, {str(sys.path[0])!r})
from datamodules.locks import held
with held(__import__("pathlib").Path({str(tmp_path / LOCK)!r}), wait=False):
    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)
    print("ready", flush=True)
    os.kill(os.getpid(), 9)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        with alone_in(tmp_path, patience_s=30):
            assert time.monotonic() - began < 20


@pytest.mark.parametrize(("job", "waits"), [("42", True), ("43", False), (None, False)])
def test_an_earlier_start_of_the_same_job_is_waited_for_until_it_ends_itself(job, waits, tmp_path, monkeypatch, caplog):
    """On a node that SLURM has given up it stands still, and would make the new start end for good."""
    monkeypatch.setattr(one_fit, "PATIENCE_S", 0.0)
    monkeypatch.setenv("STANDSTILL_SECONDS", "30")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job is not None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    state = {"host": "n7", "step": 120, "slurm": {"job_id": "42"}}
    (tmp_path / "run_state.json").write_text(json.dumps(state))
    other = alone_in(tmp_path)
    other.__enter__()
    ending = threading.Timer(2.0, other.__exit__, (None, None, None))
    ending.start()
    try:
        if waits:
            with alone_in(tmp_path):
                assert "another training (on n7, job 42, step 120): waiting 30 s for its end" in caplog.text
        else:
            with pytest.raises(ConfigError, match="job 42"):
                alone_in(tmp_path).__enter__()
    finally:
        ending.join()


def test_a_fit_beside_another_touches_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(one_fit, "PATIENCE_S", 0.0)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    partial = run / "checkpoints" / ".last.ckpt.partial-host-7"  # the other is writing it
    partial.write_bytes(b"half")
    words = ["fit", "--config", "embedder/pen.yaml", f"--data.folder={tmp_path / 'data'}", "--trainer.accelerator=cpu"]
    with held(run / LOCK, wait=False):
        assert main([*words, f"--trainer.default_root_dir={run}"]) == 1
    assert f"error: trainer.default_root_dir {run}: is written by another training" in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir()) == [LOCK, "checkpoints"]
    assert partial.exists()
    assert not (tmp_path / "data").exists()


def test_what_a_kill_left_of_a_checkpoint_goes_with_the_next_fit(tmp_path, capsys):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    kept, partial = run / "checkpoints" / "last.txt", run / "checkpoints" / ".last.ckpt.partial-host-7"
    for path in (kept, partial):
        path.write_bytes(b"half")
    words = ["fit", "--config", "embedder/pen.yaml", f"--data.folder={tmp_path / 'data'}", "--trainer.accelerator=cpu"]
    assert main([*words, f"--trainer.default_root_dir={run}", "--ckpt_path=none.ckpt"]) == 1  # and then it ends
    assert "none.ckpt" in capsys.readouterr().err
    assert kept.exists()
    assert not partial.exists()


@pytest.mark.parametrize("kind", ["file", "directory"])  # DeepSpeed writes directories
def test_a_folder_that_holds_a_training_is_not_begun_anew(kind, tmp_path, capsys):
    """Its checkpoints would be replaced at the first validation."""
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    if kind == "file":
        last.write_bytes(b"of weeks")
    else:
        last.mkdir()
    words = ["fit", "--config", "embedder/pen.yaml", f"--data.folder={tmp_path / 'data'}", "--trainer.accelerator=cpu"]
    assert main([*words, f"--trainer.default_root_dir={run}"]) == 1
    said = capsys.readouterr().err
    assert f"error: trainer.default_root_dir {run}: holds a training already ({last})" in said
    assert "Give --ckpt_path last to go on with it" in said
    assert last.exists()
    assert not (tmp_path / "data").exists()


def test_an_empty_limit_is_the_usual_one_as_for_the_job_script(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("STANDSTILL_SECONDS", "")
    (tmp_path / "run_state.json").write_text(json.dumps({"slurm": {"job_id": "42"}}))
    assert one_fit._patience(tmp_path) == one_fit.PATIENCE_S + one_fit.STANDSTILL_S
