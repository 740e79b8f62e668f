"""A small training as a job of SLURM, watched from outside: its start, its end, its processes."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TRAINERS = {
    "ddp": ["--config", "trainer/ddp.yaml", "--trainer.precision=32-true"],
    "zero1": ["--config", "trainer/deepspeed_stage2.yaml", "--trainer.strategy.init_args.stage=1"],
    "zero2": ["--config", "trainer/deepspeed_stage2.yaml"],
    "zero3": ["--config", "trainer/deepspeed_stage3.yaml"],
}
PATIENCE_S = 600.0  # a start took 15 seconds on two idle cores, a hundred on busy ones


def make_data(root: Path) -> list[str]:
    """Draw and cache what a student learns from, once; return the options of `fit`."""
    options = {"model.teacher": root / "teacher", "data.shards": root / "shards", "data.cache": root / "cache"}
    words = [f"--{name}={path}" for name, path in options.items()]
    if not (root / "cache" / "manifest.json").is_file():
        from datamodules.layouts import read_clips
        from datamodules.pen import draw_pen, load_pen_config
        from datamodules.shards import write_shards
        from datamodules.splits import load_split
        from pl_distill.cli import main
        from pl_distill.models.sam3 import write_random_sam3

        small = replace(load_pen_config("day"), width=160, height=90)
        days = ["2026_01_01", "2026_01_21"]
        draw_pen(root / "clips", small, days=days, clips_per_day=1, frames_per_clip=24, seed=0)
        write_shards(read_clips(root / "clips"), load_split("pen"), root / "shards", samples_per_shard=5)
        write_random_sam3("tiny", root / "teacher", seed=0)
        assert main(["predict", "--config", "cache/pen.yaml", *words]) == 0
    return words


def submit(strategy: str, nodes: int, folder: Path, data: list[str], steps: int, workers: int) -> str:
    """Start a training of two processes; return the job's number."""
    small = [
        "--trainer.accelerator=cpu", "--trainer.sync_batchnorm=false", "--trainer.log_every_n_steps=1",
        "--data.batch_size=2", f"--data.num_workers={workers}", "--model.gradient_norms_every=0",
        f"--trainer.max_steps={steps}", f"--trainer.val_check_interval={max(2, steps // 4)}",
        "--trainer.num_sanity_val_steps=0",
    ]  # fmt: skip
    words = [
        "sbatch", "--parsable", f"--nodes={nodes}", f"--ntasks-per-node={2 // nodes}", "--cpus-per-task=1",
        "--time=60", f"--output={folder}.log", str(HERE / "train.sbatch"), str(folder),
        "--config", "distill/pen.yaml", *TRAINERS[strategy], *small, *data,
    ]  # fmt: skip
    script = Path(sys.executable).with_name("pl-distill")
    environment = {**os.environ, "PL_DISTILL": str(script), "PL_DISTILL_SLURM_DIR": str(HERE), "OMP_NUM_THREADS": "1"}
    environment |= {"NO_ALBUMENTATIONS_UPDATE": "1", "MAX_CRASHES": "100"}
    environment.setdefault("STANDSTILL_SECONDS", "120")
    ran = subprocess.run(words, capture_output=True, text=True, env=environment)
    if ran.returncode:
        raise RuntimeError(f"sbatch refuses the job: {ran.stderr.strip()}")
    return ran.stdout.strip()


def said(*words: str) -> str:
    """Return what a command prints."""
    return subprocess.run(words, capture_output=True, text=True).stdout


def show(job: str) -> dict[str, str]:
    """Return what SLURM says about a job."""
    return dict(re.findall(r"(\w+)=(\S*)", said("scontrol", "show", "job", "-o", job)))


def state_of(folder: Path) -> dict[str, Any]:
    """Return `run_state.json`; nothing while there is none."""
    try:
        content: dict[str, Any] = json.loads((folder / "run_state.json").read_text())
        return content
    except (OSError, ValueError):
        return {}


def training(folder: Path, restarts: int) -> bool:
    """Whether a run is training, in the job's start of that number, from 0."""
    state = state_of(folder)
    return state.get("state") == "running" and int(state["slurm"].get("restart_count", 0)) == restarts


def wait_for(what: str, condition: Any, seconds: float = PATIENCE_S) -> Any:
    """Wait until `condition` gives something true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.3)
    raise TimeoutError(f"waited {seconds:.0f} s in vain until {what}")


@dataclass(frozen=True)
class Pace:
    """How fast a training goes on this machine, now.

    Args:
        start_s: Seconds from the job's start to the run's first word, most of them Python's imports.
        training_s: Seconds from there to its end.
    """

    start_s: float
    training_s: float


def leave_alone(job: str, folder: Path) -> Pace:
    """Wait for the end of a training that nobody disturbs, and return how fast it was."""
    wait_for(f"job {job} runs", lambda: show(job)["JobState"] != "PENDING")
    began = time.monotonic()
    wait_for("training", lambda: state_of(folder) or show(job)["JobState"] != "RUNNING")
    trains = time.monotonic()
    finish(job, folder)
    return Pace(round(trains - began, 1), round(time.monotonic() - trains, 1))


def finish(job: str, folder: Path) -> None:
    """Wait for the end of a training that nobody disturbs from now on."""
    seconds = PATIENCE_S * 4
    ended = wait_for(f"job {job} ends", lambda: show(job)["JobState"] in ("COMPLETED", "FAILED", "CANCELLED"), seconds)
    if not ended or show(job)["JobState"] != "COMPLETED" or state_of(folder).get("state") != "done":
        raise RuntimeError(f"job {job} is {show(job)['JobState']}, its run {state_of(folder)}; see {folder}.log")


def has_tasks(job: str) -> bool:
    """Whether srun has started a job's tasks."""
    return f"{job}.0" in said("squeue", "--noheader", "--steps", "--jobs", job)


def started_again(job: str, restarts: int) -> bool:
    """Whether a job runs after more than so many restarts.

    Raises:
        RuntimeError: It has ended instead.
    """
    told = show(job)
    if told["JobState"] in ("COMPLETED", "FAILED", "CANCELLED"):
        raise RuntimeError(f"job {job} ended ({told['JobState']}) as the signal came: give more --steps")
    return int(told["Restarts"]) > restarts and told["JobState"] == "RUNNING"


def rank_process(run: Path, rank: int) -> int:
    """Return the process of a rank of a run on this machine; its loader's workers are younger."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes().split(b"\0")
            started = (process / "stat").read_text().rpartition(")")[2].split()[19]
        except OSError:
            continue
        # Not by the job's number: another cluster on this machine has a job of that number, too.
        if f"--trainer.default_root_dir={run}".encode() in arguments and f"SLURM_PROCID={rank}".encode() in environment:
            found.append((int(started), int(process.name)))
    if not found:
        raise RuntimeError(f"{run} has no process of rank {rank}")
    return min(found)[1]
