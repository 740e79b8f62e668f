"""Interrupt a training on a real SLURM at random moments and see that it ends with the weights of one left alone.

    slurm/local_cluster.sh up && export SLURM_CONF=/tmp/pl-distill-slurm/slurm.conf
    python slurm/drill.py --out /tmp/drill --signals 20        # ten over DDP, ten over ZeRO-2; about 25 minutes
    python slurm/drill.py --out /tmp/drill --signals 2 --crash rank slurmd   # and two crashes for each

The data set is drawn, the student is that of configs/distill/pen.yaml, two processes train on CPUs: DDP on two nodes,
ZeRO-2 on one. Writes `tally.json` and prints a table; exit code 1 where a job was lost or a weight differs.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NODES = {"ddp": 2, "zero1": 1, "zero2": 1, "zero3": 2}
TRAINERS = {
    "ddp": ["--config", "trainer/ddp.yaml", "--trainer.precision=32-true"],
    "zero1": ["--config", "trainer/deepspeed_stage2.yaml", "--trainer.strategy.init_args.stage=1"],
    "zero2": ["--config", "trainer/deepspeed_stage2.yaml"],
    "zero3": ["--config", "trainer/deepspeed_stage3.yaml"],
}
STEPS = 16  # of a training, for each interruption
PACE = "pace.json"
CRASHES = ("rank", "slurmd", "stop")
PATIENCE_S = 600.0  # a start took 15 seconds on two idle cores, a hundred on busy ones


@dataclass
class Interruption:
    """One thing done to the job, and what came of it.

    Args:
        kind: ``USR1``, ``TERM``; what was killed: ``rank``, ``slurmd``; or ``stop``: rank 1 was stopped, so that the
            training stood still.
        after_s: Seconds since the job's (re)start.
        steps: Optimiser steps that the run had made by then, as its state says.
        saved: The step that was saved in answer; None where the process had no time to.
        restart_s: Seconds from the interruption to the job's next start.
    """

    kind: str
    after_s: float
    steps: int
    saved: int | None = None
    restart_s: float | None = None


@dataclass
class Trial:
    """One interrupted training, compared with one left alone."""

    strategy: str
    nodes: int
    interruptions: list[Interruption] = field(default_factory=list)
    starts: int = 0
    weights_equal: bool = False
    validation_equal: bool = False
    one_curve: bool = False
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether every interruption was survived and nothing differs from the training left alone."""
        resumed = all(one.restart_s is not None for one in self.interruptions)
        undisturbed = self.starts <= 1 + len(self.interruptions)  # or it stood still in between
        return resumed and undisturbed and self.weights_equal and self.validation_equal and self.one_curve


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


def interrupt(
    job: str, folder: Path, kind: str, latest: Pace | None, generator: random.Random, cluster: Path
) -> Interruption:
    """Wait for a random moment, half of them while Python starts, do it, and wait for the job's next start.

    Args:
        job: Its number.
        folder: Of its run.
        kind: See `Interruption`.
        latest: The last moment in question, in a start and in a training; None for the first seconds of the tasks.
        generator: Of the moments.
        cluster: Folder of local_cluster.sh.
    """
    wait_for(f"job {job} runs", lambda: show(job)["JobState"] == "RUNNING")
    began, restarts = time.monotonic(), int(show(job)["Restarts"])
    crash = kind in CRASHES
    if crash:  # there must be a checkpoint to go on from
        wait_for("a checkpoint", lambda: (folder / "checkpoints" / "last.ckpt").exists())
    if latest is None:
        wait_for("tasks", lambda: has_tasks(job))
        time.sleep(generator.uniform(0, 2))  # Python's imports take longer, however fast the machine
    elif crash or generator.random() < 0.5:
        wait_for("training", lambda: training(folder, restarts))
        time.sleep(generator.uniform(0, latest.training_s))
    else:  # no later than its first word: the machine may be quieter than when the pace was taken
        end = time.monotonic() + generator.uniform(0, latest.start_s)
        wait_for("the moment", lambda: time.monotonic() > end or training(folder, restarts))
    done = Interruption(kind, round(time.monotonic() - began, 1), state_of(folder).get("step", 0))
    if show(job)["JobState"] != "RUNNING":
        raise RuntimeError(f"job {job} ended before the signal: give more --steps")
    at = time.monotonic()
    if kind in ("rank", "stop"):
        os.kill(rank_process(folder, 1), signal.SIGKILL if kind == "rank" else signal.SIGSTOP)
    elif kind == "slurmd":
        node = said("scontrol", "show", "hostnames", show(job)["NodeList"]).split()[-1]
        os.kill(int((cluster / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
        wait_for(
            "the lost node is noticed",
            lambda: show(job)["JobState"] != "RUNNING" or int(show(job)["Restarts"]) > restarts,
        )
        subprocess.run([HERE / "local_cluster.sh", "up", cluster], check=True, stdout=subprocess.DEVNULL)
    else:
        # USR1 to the tasks, the batch script and its children. TERM to the tasks alone, as SLURM does ahead of a
        # preemption with GraceTime: srun answers it by killing them.
        if kind == "TERM":
            wait_for("tasks", lambda: has_tasks(job))
        subprocess.run(["scancel", *(["--full"] if kind == "USR1" else []), f"--signal={kind}", job], check=True)
    wait_for("the job starts again", lambda: started_again(job, restarts))
    done.restart_s = round(time.monotonic() - at, 1)
    state = state_of(folder)
    if state.get("state") == "requeued":
        done.saved = state["step"]
    return done


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


def curve(folder: Path, tag: str) -> dict[int, list[float]]:
    """Return the values of a curve by step, as TensorBoard shows it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    values: dict[int, list[float]] = {}
    for one in EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload().Scalars(tag):
        values.setdefault(one.step, []).append(one.value)
    return values


def compare(trial: Trial, alone: Path, folder: Path) -> None:
    """Fill in what the two trainings have in common."""
    import torch

    from pl_distill.models.student_io import load_student

    ours, theirs = (load_student(one / "checkpoints" / "last.ckpt").state_dict() for one in (folder, alone))
    trial.weights_equal = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    trial.validation_equal = curve(folder, "val/loss") == curve(alone, "val/loss")
    rates = curve(folder, "train/learning_rate")
    trial.one_curve = rates == curve(alone, "train/learning_rate") and all(len(one) == 1 for one in rates.values())
    trial.starts = state_of(folder)["starts"]


def main() -> int:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, logs and tally.json")
    parser.add_argument("--signals", type=int, default=20, help="in all, divided among the strategies")
    parser.add_argument("--strategies", nargs="+", choices=TRAINERS, default=["ddp", "zero2"])
    parser.add_argument("--kinds", nargs="+", choices=["USR1", "TERM"], default=["USR1", "TERM"])
    parser.add_argument("--crash", nargs="*", choices=CRASHES, default=[], help="at the end of the signals")
    parser.add_argument("--steps", type=int, default=0, help="of each training; by default enough for the signals")
    parser.add_argument("--workers", type=int, default=1, help="processes per rank that read")
    parser.add_argument("--early", action="store_true", help="signals as Python starts only, on machines of any pace")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--cluster", type=Path, default=Path("/tmp/pl-distill-slurm"), help="folder of local_cluster.sh"
    )
    given = parser.parse_args()
    out = given.out.resolve()
    data = make_data(out / "data")
    trials = []
    for number, strategy in enumerate(given.strategies):
        generator = random.Random(f"{given.seed} {strategy}")
        share = len(range(number, given.signals, len(given.strategies)))
        kinds = [generator.choice(given.kinds) for _ in range(share)] + given.crash
        steps = given.steps or STEPS * (len(kinds) + 1)
        trial = Trial(strategy, NODES[strategy])
        alone, folder = out / f"{strategy}-alone", out / f"{strategy}-interrupted"
        for one in [folder, *([] if (alone / PACE).is_file() else [alone])]:
            if one.exists():  # it would go on from what an earlier drill has left
                parser.error(f"{one} is there already: give another --out, or delete it")
        if not (alone / PACE).is_file():
            pace = leave_alone(submit(strategy, trial.nodes, alone, data, steps, given.workers), alone)
            (alone / PACE).write_text(json.dumps(asdict(pace)) + "\n")
        pace = Pace(**json.loads((alone / PACE).read_text()))
        # What is left of a training must last for the interruptions to come, also on a machine that is quieter by then.
        latest = Pace(pace.start_s, 0.6 * pace.training_s / (len(kinds) + 1))
        began = time.monotonic()
        job = submit(strategy, trial.nodes, folder, data, steps, given.workers)
        for kind in kinds:
            moments = None if given.early and kind not in CRASHES else latest
            done = interrupt(job, folder, kind, moments, generator, given.cluster)
            trial.interruptions.append(done)
            print(strategy, asdict(done), flush=True)
        finish(job, folder)
        trial.seconds = round(time.monotonic() - began, 1)
        compare(trial, alone, folder)
        trials.append(trial)
        tally = [{**asdict(one), "good": one.good} for one in trials]
        (out / "tally.json").write_text(json.dumps(tally, indent=2) + "\n")
    print("\nstrategy  nodes  interruptions  answered by a save  starts  weights equal  val/loss equal  one curve")
    for trial in trials:
        saved = sum(one.saved is not None for one in trial.interruptions)
        print(
            f"{trial.strategy:<8}  {trial.nodes:<5}  {len(trial.interruptions):<13}  {saved:<18}  {trial.starts:<6}  "
            f"{trial.weights_equal!s:<13}  {trial.validation_equal!s:<14}  {trial.one_curve}"
        )
    return 0 if all(trial.good for trial in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
