"""`pl-distill demo`: every link of the chain, one after the other, on a pen that it draws itself."""

import os
from dataclasses import asdict, replace
from datetime import date, timedelta
from itertools import count as count_up
from pathlib import Path

from tqdm import tqdm

from datamodules.layouts import read_clips
from datamodules.pen import EVALUATION_SEED, draw_pen, load_pen_config
from datamodules.shards import write_shards
from datamodules.splits import Part, format_day, load_split
from pl_distill import __version__
from pl_distill.commands.budget import BUDGET_FILE, write_budget
from pl_distill.commands.lightning import run_lightning
from pl_distill.commands.parsing import find_recipe
from pl_distill.commands.processes import run_apart
from pl_distill.commands.steps import Steps
from pl_distill.deploy.budget import predict
from pl_distill.deploy.envelope import load_envelope
from pl_distill.deploy.recipe import read_recipe
from pl_distill.errors import ConfigError
from pl_distill.evaluation.devices import has_bfloat16
from pl_distill.evaluation.evaluate import RESULTS_FILE
from pl_distill.evaluation.headline import format_table
from pl_distill.evaluation.jobs import evaluate_in_jobs
from pl_distill.evaluation.models import model_sha256
from pl_distill.evaluation.report import report
from pl_distill.evaluation.results import read_results, write_results
from pl_distill.models.sam3 import load_necks, load_sam3
from pl_distill.models.student_io import load_student
from pl_distill.streaming import Appearance, PruningPolicy

RECIPE = "distill/pen.yaml"
DEVICE = "orin-nx-16gb"  # whose limits the budget is told against
BATCH = 16  # frames per step, of all processes: what the recipe's learning rate is for
DAYS: dict[Part, tuple[date, int]] = {  # first day and number of days in configs/splits/pen.yaml
    "train": (date(2026, 1, 1), 20),
    "val": (date(2026, 1, 21), 5),
    "test": (date(2026, 1, 26), 6),
}
POLICY = PruningPolicy(appearance=Appearance())  # what a pen's owner wants: animals keep their identities


def demo(
    out: Path = Path("runs/demo"),
    domain: str = "day",
    train_clips: int = 12,
    train_frames: int = 60,
    test_clips: int = 2,
    frames: int = 120,
    max_steps: int = 800,
    seed: int = 0,
    teacher: str = "pen_teacher",
) -> None:
    """Run the whole chain on a drawn pen: clips, shards, cached teacher, distilled student, scores, budget, report.

    A second run with the same settings reuses what is there, a killed one goes on.
    Example: pl-distill demo --out runs/demo

    Args:
        out: Folder of everything that is made.
        domain: Which pen is drawn: a name of configs/pen.
        train_clips: Clips to train on, 1 to 20; each is of another day and shows another herd. One more is drawn for
            validation.
        train_frames: Frames of each of them.
        test_clips: Clips to score, 1 to 6, of one herd with a seed that training never sees.
        frames: Frames of each clip to score.
        max_steps: Optimiser steps of the student.
        seed: Of the pen and the student's weights.
        teacher: A SAM 3: the shipped one, or a folder.
    """
    # Clips and frames of each. Neighbouring frames look alike: few of another pen are enough to validate on.
    clips: dict[Part, tuple[int, int]] = {
        "train": (train_clips, train_frames),
        "val": (1, min(train_frames, 40)),
        "test": (test_clips, frames),
    }
    for part, (count, _) in clips.items():
        if not 1 <= count <= DAYS[part][1]:
            raise ConfigError(f"--{part}_clips", f"is {count}", f"1 to {DAYS[part][1]}", "The split has no more days.")
    most = EVALUATION_SEED - train_clips - 1  # each clip of training and validation shows a herd of its own
    if not 0 <= seed <= most:
        raise ConfigError("--seed", f"is {seed}", f"0 to {most}", "Larger seeds are kept for evaluation.")
    settings = {
        "version": __version__,
        "domain": domain,
        "train_clips": train_clips,
        "train_frames": train_frames,
        "test_clips": test_clips,
        "frames": frames,
        "max_steps": max_steps,
        "seed": seed,
        "teacher_sha256": model_sha256(load_sam3(teacher)),
        "policy": asdict(POLICY),
    }
    steps = Steps(out / "demo.json", settings, total=7)
    shards, features, student = (out / name for name in ("shards", "features", "student"))

    def draw() -> None:
        config, herds = load_pen_config(domain), count_up(seed)
        with tqdm(total=sum(count * length for count, length in clips.values()), desc="draw", unit="frame") as bar:
            for part, (count, length) in clips.items():
                for number in range(count):
                    draw_pen(
                        out / "clips",
                        config,
                        days=[format_day(DAYS[part][0] + timedelta(days=number))],
                        clips_per_day=1,
                        frames_per_clip=length,
                        seed=EVALUATION_SEED + seed if part == "test" else next(herds),
                        progress=bar.update,
                    )

    def distil() -> None:
        # Two processes of one thread do more than one of two threads.
        processes = min(2, os.cpu_count() or 1)
        recipes = ["--config", RECIPE, "--config", "trainer/cpu.yaml"]
        data = [f"--data.shards={shards}", f"--data.cache={features}", f"--data.batch_size={BATCH // processes}"]
        training = [
            f"--trainer.max_steps={max_steps}",
            f"--trainer.val_check_interval={max(1, max_steps // 5)}",
            f"--trainer.default_root_dir={out / 'logs'}",
        ]
        machine = [f"--trainer.devices={processes}", f"--trainer.strategy={'ddp' if processes > 1 else 'auto'}"]
        if has_bfloat16():
            machine.append("--trainer.precision=bf16-mixed")
        model = [f"--seed_everything={seed}", f"--model.teacher={teacher}"]
        steps.note_peak(run_apart(["fit", *recipes, *model, *data, *training, *machine, "--ckpt_path=last"]))
        trained = load_student(out / "logs" / "checkpoints" / "last.ckpt")
        necks = load_necks(teacher)
        trained.attach_necks(necks.detector_neck, necks.tracker_neck)
        trained.save_pretrained(student, **trained.origin)

    def cache() -> None:
        places = [f"--model.teacher={teacher}", f"--data.shards={shards}", f"--data.cache={features}"]
        run_lightning(["predict", "--config", "cache/pen.yaml", *places])

    def score() -> None:
        evaluation = {"model": student, "data": shards, "out": out, "teacher": teacher, "seed": EVALUATION_SEED + seed}
        evaluation["policy"] = POLICY
        evaluate_in_jobs([evaluation], jobs=min(test_clips, os.cpu_count() or 1))

    def weigh() -> None:
        found = predict(read_recipe(find_recipe(RECIPE), teacher), 8, 20, ["bf16"], training=False)
        write_budget(out, found, {DEVICE: load_envelope(DEVICE)})

    steps.run("draw", "draw the pen", out / "clips", draw)
    steps.run(
        "shards",
        "write shards",
        shards / "manifest.json",
        lambda: write_shards(read_clips(out / "clips"), load_split("pen"), shards),
    )
    steps.run("features", "cache the teacher's features", features / "manifest.json", cache)
    steps.run("student", "distil the student", student, distil)
    steps.run("evaluate", "stream and score teacher and student", out / RESULTS_FILE, score)
    steps.run("budget", "predict what a device must hold", out / BUDGET_FILE, weigh)

    results = read_results(out / RESULTS_FILE)
    # Not the report's own: it shows these numbers, so it comes after them.
    seconds = {name: step.seconds for name, step in steps.done.items() if name != "report"}
    results = replace(
        results,
        steps=seconds,
        seconds=round(sum(seconds.values()), 2),
        # The evaluation measures each clip anew, so its own peak is not in its step's.
        peak_rss_bytes=max(results.peak_rss_bytes, *(step.peak_rss_bytes for step in steps.done.values())),
    )
    write_results(out / RESULTS_FILE, results)
    steps.run("report", "write the report", out / "report.html", lambda: report(out))

    print(f"\n{format_table(results)}\n")
    for note in results.notes:
        print(f"note: {note}")
    print(f"\n{results.seconds:.0f} s in all, at most {results.peak_rss_bytes / 2**30:.2f} GiB of memory in a process")
    print(f"report    {out / 'report.html'}")
    print(f"videos    {out / 'videos'}")
    print(f"scores    {out / RESULTS_FILE}")
    print(f"curves    tensorboard --logdir {out}")
