"""A real SLURM of two nodes on this machine: jobs that are signalled and killed end with the weights of one left alone.

The full count is a command: see slurm/README.md.
"""

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.smoke]

# each of pytest's processes may start a cluster of its own
PORT = 28817 + 10 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "slurm" / "local_cluster.sh"


def run(*words, timeout=60, **more):
    environment = {**os.environ, **{name: str(value) for name, value in more.items()}}
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=timeout, env=environment)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The folder of a cluster that runs; skipped where none is asked for, a failure where one is and does not start."""
    if os.environ.get("PL_DISTILL_SLURM") != "1":
        pytest.skip("PL_DISTILL_SLURM=1 installs SLURM where it is missing and starts it; it is not set")
    ran = run(SCRIPT, "install", timeout=420, INSTALL_SECONDS=180)
    assert ran.returncode == 0, f"SLURM cannot be installed here: {ran.stderr.strip() or 'out of time'}"
    folder = tmp_path_factory.mktemp("slurm")
    try:
        ran = run(SCRIPT, "up", folder, timeout=240, PL_DISTILL_SLURM_PORT=PORT)  # seconds, but of a busy machine
        # read here, as `down` deletes them
        logs = [f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(folder.glob("*.log"))]
        assert ran.returncode == 0, "\n".join(["SLURM does not start here", ran.stderr, *logs])
        yield folder
    finally:
        run(SCRIPT, "down", folder)


@pytest.fixture
def slurm(cluster, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(cluster / "slurm.conf"))
    monkeypatch.setenv("PL_DISTILL_SLURM_PORT", str(PORT))
    monkeypatch.setenv("PL_DISTILL_SLURM_DIR", str(ROOT / "slurm"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PL_DISTILL", str(Path(sys.executable).with_name("pl-distill")))
    return cluster


def wait(job, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        said = run("scontrol", "show", "job", "-o", job).stdout
        state = said.partition("JobState=")[2].partition(" ")[0]
        if state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"):
            return state, said
        time.sleep(0.5)
    raise TimeoutError(f"job {job}: {said}")


def wait_until(condition, what, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain until {what}"
        time.sleep(0.3)


def drill(cluster, out, strategy, nodes, *options):
    """Run the drill; return what it says about its one trial, and the job's log."""
    words = [sys.executable, ROOT / "slurm" / "drill.py", "--out", out, "--strategies", strategy]
    ran = run(*words, *options, "--cluster", cluster, timeout=1500)
    log = out / f"{strategy}-interrupted.log"
    said = log.read_text() if log.exists() else ""
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:] + said[-3000:]
    (trial,) = json.loads((out / "tally.json").read_text())
    assert trial["nodes"] == nodes
    assert all(one["restart_s"] is not None for one in trial["interruptions"])
    assert trial["weights_equal"]
    assert trial["validation_equal"]
    assert trial["one_curve"]
    return trial, said


def test_ddp_on_two_nodes_answers_a_signal_that_comes_while_it_starts(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("PL_DISTILL_CONTAINER", "nice")  # a wrapper, where a container's start would stand
    short = ["--signals", 1, "--early", "--kinds", "USR1", "--steps", 8, "--workers", 0]
    trial, said = drill(slurm, tmp_path, "ddp", 2, *short)
    assert trial["starts"] == 2
    assert trial["interruptions"][0]["saved"] == 1, "after its first batch"
    assert "rendezvous at 127.0.0.1:" in said, "an address, no name"
    assert "saved after a signal; asking for a requeue" in said


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_a_training_survives_signals_a_killed_rank_and_one_that_stands_still(strategy, slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("STANDSTILL_SECONDS", "60")
    nodes = {"ddp": 2, "zero2": 1}[strategy]
    _, said = drill(slurm, tmp_path, strategy, nodes, "--signals", 2, "--crash", "rank", "stop")
    assert said.count("goes on from the last checkpoint; asking for a requeue") >= 2
    assert "a task was killed (exit code 142)" in said
    assert "Thread 0x" in said, "where it stood"


def test_a_job_that_makes_a_mistake_or_is_cancelled_is_not_started_again(slurm, tmp_path, monkeypatch):
    words = ["sbatch", "--parsable", "--ntasks-per-node=1", f"--output={tmp_path}/%j.log", ROOT / "slurm/train.sbatch"]
    wrong = run(*words, tmp_path / "wrong", "--config", "no/such.yaml").stdout.strip()
    state, said = wait(wrong)
    assert state == "FAILED"
    assert "Restarts=0" in said
    log = (tmp_path / f"{wrong}.log").read_text()
    assert "no/such.yaml" in log
    assert "requeue" not in log

    pulled = tmp_path / "pull"  # an image that takes its time, so that the job is there to be cancelled
    pulled.write_text('#!/bin/sh\ntouch "$0.began"\nsleep 600\nexec "$@"\n')
    pulled.chmod(0o755)
    monkeypatch.setenv("PL_DISTILL_CONTAINER", str(pulled))
    other = run(*words, tmp_path / "cancelled", "--config", "distill/pen.yaml").stdout.strip()
    log = tmp_path / f"{other}.log"
    wait_until(pulled.with_name("pull.began").exists, f"the job begins, see {log}")
    cancelled = run("scancel", other)
    assert cancelled.returncode == 0, cancelled.stderr
    state, said = wait(other)
    assert state == "CANCELLED", said + log.read_text()
    assert "Restarts=0" in said


def test_a_smoke_on_two_nodes_gives_each_task_the_cores_of_the_job(slurm, tmp_path, monkeypatch):
    stand_in = tmp_path / "pl-distill"  # a fit of no time
    stand_in.write_text(
        "#!/bin/bash\n"
        'if [ "$1" = --version ]; then exit; fi\n'
        "echo fit with $SLURM_CPUS_PER_TASK cores, $(grep SigBlk /proc/self/status)\n"
        f"""sed 's/.*max_steps=\\([0-9]*\\).*/{{"step": \\1}}/' <<< "$*" > {tmp_path}/run/run_state.json\n"""
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PL_DISTILL", str(stand_in))
    cores = len(os.sched_getaffinity(0))
    words = ["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", f"--cpus-per-task={cores}"]
    log = tmp_path / "log"
    job = run(*words, f"--output={log}", ROOT / "slurm/smoke.sbatch", tmp_path / "run").stdout.strip()
    state, _ = wait(job)
    said = log.read_text()
    assert state == "COMPLETED", said
    assert said.count(f" has {cores} cores, {cores} asked for") == 2
    assert said.count(f"fit with {cores} cores, SigBlk: 0000000000004200") == 4


def test_a_training_that_does_not_answer_comes_back_after_its_time_limit(slurm, tmp_path, monkeypatch):
    deaf = tmp_path / "deaf"
    deaf.write_text('#!/bin/sh\n[ "$1" = --version ] || exec sleep 600\n')
    deaf.chmod(0o755)
    monkeypatch.setenv("PL_DISTILL", str(deaf))
    words = ["sbatch", "--parsable", "--ntasks-per-node=1", "--time=10", f"--output={tmp_path}/%j.log"]
    job = run(*words, ROOT / "slurm/train.sbatch", tmp_path / "run").stdout.strip()
    wait_until(lambda: f"{job}.0" in run("squeue", "--noheader", "--steps", "--jobs", job).stdout, "the step runs")
    # Sooner than a time limit of whole minutes; SLURM looks every 30 seconds.
    run("scontrol", "update", f"JobId={job}", f"EndTime={datetime.now():%FT%T}")
    wait_until(lambda: "Restarts=1" in run("scontrol", "show", "job", "-o", job).stdout, "it comes back")
    run("scancel", job)
    wait(job)  # or its processes outlive the cluster
    assert "DUE TO TIME LIMIT" in (tmp_path / f"{job}.log").read_text()
