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
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from drill_job import (
    TRAINERS,
    Pace,
    finish,
    has_tasks,
    leave_alone,
    make_data,
    rank_process,
    said,
    show,
    started_again,
    state_of,
    submit,
    training,
    wait_for,
)

HERE = Path(__file__).resolve().parent
NODES = {"ddp": 2, "zero1": 1, "zero2": 1, "zero3": 2}
STEPS = 16  # of a training, for each interruption
PACE = "pace.json"
CRASHES = ("rank", "slurmd", "stop")


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

    ours, theirs = (
        load_student(one / "checkpoints" / "last.ckpt", trust_pickles=True).state_dict() for one in (folder, alone)
    )
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
