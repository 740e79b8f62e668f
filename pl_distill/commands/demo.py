"""`pl-distill demo`: every link of the chain, one after the other, on a pen that it draws itself."""

import os
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from itertools import count as count_up
from pathlib import Path
from typing import Any

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
from pl_distill.evaluation.results import Results, read_results, write_results
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


@dataclass(frozen=True)
class Demo:
    """What is made, and of what; the fields are the arguments of `demo`, the methods its steps."""

    out: Path
    domain: str
    train_clips: int
    train_frames: int
    test_clips: int
    frames: int
    max_steps: int
    seed: int
    teacher: str

    @property
    def clips(self) -> dict[Part, tuple[int, int]]:
        """Clips of each part, and frames of each: few of another pen are enough to validate on, for they look alike."""
        return {
            "train": (self.train_clips, self.train_frames),
            "val": (1, min(self.train_frames, 40)),
            "test": (self.test_clips, self.frames),
        }

    @property
    def shards(self) -> Path:
        """Folder of the clips as shards."""
        return self.out / "shards"

    @property
    def features(self) -> Path:
        """Folder of the teacher's features."""
        return self.out / "features"

    @property
    def student(self) -> Path:
        """Folder of the trained student."""
        return self.out / "student"

    @property
    def evaluation_seed(self) -> int:
        """Of the herd to score, and of the evaluation."""
        return EVALUATION_SEED + self.seed

    def check(self) -> None:
        """Refuse numbers out of their range.

        Raises:
            ConfigError: There are more clips than days, the seed belongs to evaluation, or a number is below 1.
            UserError: There is no such domain.
        """
        load_pen_config(self.domain)
        for option in ("train_frames", "frames", "max_steps"):
            if getattr(self, option) < 1:
                raise ConfigError(f"--{option}", f"is {getattr(self, option)}", "1 or more", "Correct it.")
        for part, (count, _) in self.clips.items():
            days = DAYS[part][1]
            if not 1 <= count <= days:
                raise ConfigError(f"--{part}_clips", f"is {count}", f"1 to {days}", "The split has no more days.")
        most = EVALUATION_SEED - self.train_clips - 1  # each clip of training and validation shows a herd of its own
        if not 0 <= self.seed <= most:
            raise ConfigError("--seed", f"is {self.seed}", f"0 to {most}", "Larger seeds are kept for evaluation.")

    def settings(self) -> dict[str, Any]:
        """Return what the results depend on."""
        settings = {"version": __version__, **asdict(self)}
        del settings["out"], settings["teacher"]
        return {**settings, "teacher_sha256": model_sha256(load_sam3(self.teacher)), "policy": asdict(POLICY)}

    def draw(self) -> None:
        """Draw the clips of every part."""
        config, herds = load_pen_config(self.domain), count_up(self.seed)
        total = sum(count * length for count, length in self.clips.values())
        with tqdm(total=total, desc="draw", unit="frame") as bar:
            for part, (count, length) in self.clips.items():
                for number in range(count):
                    draw_pen(
                        self.out / "clips",
                        config,
                        days=[format_day(DAYS[part][0] + timedelta(days=number))],
                        clips_per_day=1,
                        frames_per_clip=length,
                        seed=self.evaluation_seed if part == "test" else next(herds),
                        progress=bar.update,
                    )

    def write_shards(self) -> None:
        """Write the clips as shards."""
        write_shards(read_clips(self.out / "clips"), load_split("pen"), self.shards)

    def cache(self) -> None:
        """Cache the teacher's features."""
        places = [f"--model.teacher={self.teacher}", f"--data.shards={self.shards}", f"--data.cache={self.features}"]
        run_lightning(["predict", "--config", "cache/pen.yaml", *places])

    def distil(self) -> int:
        """Train the student, and return the largest resident set of a training process, in bytes."""
        # Two processes of one thread do more than one of two threads.
        processes = min(2, os.cpu_count() or 1)
        recipes = ["--config", RECIPE, "--config", "trainer/cpu.yaml"]
        data = [f"--data.shards={self.shards}", f"--data.cache={self.features}"]
        data.append(f"--data.batch_size={BATCH // processes}")
        training = [
            f"--trainer.max_steps={self.max_steps}",
            f"--trainer.val_check_interval={max(1, self.max_steps // 5)}",
            f"--trainer.default_root_dir={self.out / 'logs'}",
        ]
        machine = [f"--trainer.devices={processes}", f"--trainer.strategy={'ddp' if processes > 1 else 'auto'}"]
        if has_bfloat16():
            machine.append("--trainer.precision=bf16-mixed")
        model = [f"--seed_everything={self.seed}", f"--model.teacher={self.teacher}"]
        peak = run_apart(["fit", *recipes, *model, *data, *training, *machine, "--ckpt_path=last"])
        trained = load_student(self.out / "logs" / "checkpoints" / "last.ckpt")
        necks = load_necks(self.teacher)
        trained.attach_necks(necks.detector_neck, necks.tracker_neck)
        trained.save_pretrained(self.student, **trained.origin)
        return peak

    def score(self) -> None:
        """Stream and score teacher and student."""
        models = {"model": self.student, "teacher": self.teacher, "policy": POLICY}
        evaluation = {**models, "data": self.shards, "out": self.out, "seed": self.evaluation_seed}
        evaluate_in_jobs([evaluation], jobs=min(self.test_clips, os.cpu_count() or 1))

    def weigh(self) -> None:
        """Predict what a device must hold."""
        found = predict(read_recipe(find_recipe(RECIPE), self.teacher), 8, 20, ["bf16"], training=False)
        write_budget(self.out, found, {DEVICE: load_envelope(DEVICE)})


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
    made = Demo(out, domain, train_clips, train_frames, test_clips, frames, max_steps, seed, teacher)
    made.check()
    steps = Steps(out / "demo.json", made.settings(), total=7)
    steps.run("draw", "draw the pen", out / "clips", made.draw)
    steps.run("shards", "write shards", made.shards / "manifest.json", made.write_shards)
    steps.run("features", "cache the teacher's features", made.features / "manifest.json", made.cache)
    steps.run("student", "distil the student", made.student, lambda: steps.note_peak(made.distil()))
    steps.run("evaluate", "stream and score teacher and student", out / RESULTS_FILE, made.score)
    steps.run("budget", "predict what a device must hold", out / BUDGET_FILE, made.weigh)
    results = _with_steps(read_results(out / RESULTS_FILE), steps)
    write_results(out / RESULTS_FILE, results)
    steps.run("report", "write the report", out / "report.html", lambda: report(out))
    _print_summary(out, results)


def _with_steps(results: Results, steps: Steps) -> Results:
    """Return the results with time and memory of all steps but the report's: it shows these numbers."""
    seconds = {name: step.seconds for name, step in steps.done.items() if name != "report"}
    return replace(
        results,
        steps=seconds,
        seconds=round(sum(seconds.values()), 2),
        # The evaluation measures each clip anew, so its own peak is not in its step's.
        peak_rss_bytes=max(results.peak_rss_bytes, *(step.peak_rss_bytes for step in steps.done.values())),
    )


def _print_summary(out: Path, results: Results) -> None:
    print(f"\n{format_table(results)}\n")
    for note in results.notes:
        print(f"note: {note}")
    print(f"\n{results.seconds:.0f} s in all, at most {results.peak_rss_bytes / 2**30:.2f} GiB of memory in a process")
    print(f"report    {out / 'report.html'}")
    print(f"videos    {out / 'videos'}")
    print(f"scores    {out / RESULTS_FILE}")
    print(f"curves    tensorboard --logdir {out}")
