"""`pl-distill window`: scores and bytes against the pruning window, one table."""

from collections.abc import Sequence
from pathlib import Path

from datamodules.splits import Part
from pl_distill.errors import ConfigError
from pl_distill.evaluation.evaluate import DEFAULT_POLICY, RESULTS_FILE
from pl_distill.evaluation.jobs import evaluate_in_jobs
from pl_distill.evaluation.results import read_results
from pl_distill.evaluation.window import window_policies, window_rows, window_table, write_window
from pl_distill.streaming import PruningPolicy


def window(
    model: str,
    data: Path,
    out: Path,
    windows: Sequence[int] = (15, 10, 6, 4, 2, 1),
    unpruned: bool = False,
    teacher: str | None = None,
    prompt: str = "pig",
    split: Part = "test",
    max_frames: int | None = None,
    policy: PruningPolicy = DEFAULT_POLICY,
    device: str = "auto",
    seed: int = 0,
    jobs: int = 1,
) -> None:
    """Measure what a shorter memory saves and what it costs: scores and bytes against the pruning window.

    Streams the clips once for each window, in a folder of its own, and writes window.json and window.md; `pl-distill
    report --extras` shows them. What a killed run finished is not repeated.
    Example: pl-distill window --model pen_teacher --data runs/demo/shards --out runs/window --windows=[6,2,1]

    Args:
        model: A SAM 3 (folder, hub name or shipped model), or a student (folder, shipped, or a checkpoint).
        data: Folder of shards.
        out: Folder of everything that is made, a folder for each window.
        windows: How many past frames of each animal are kept, beside `exact` and `bounded`, which are always run.
        unpruned: Whether to run without pruning, too: mind the memory of long clips.
        teacher: The SAM 3 to compare with; a student knows its own.
        prompt: What to look for.
        split: Part of the shards to score.
        max_frames: Only the first so many frames of each clip.
        policy: Everything else about streaming; mode and window_frames are those of each arm.
        device: cpu, cuda, cuda:1, or auto.
        seed: Of torch's generator.
        jobs: Processes that stream at a time.
    """
    if not windows or min(windows) < 1:
        raise ConfigError("--windows", f"is {list(windows)}", "numbers of at least 1", "Correct it.")
    if jobs < 1:
        raise ConfigError("--jobs", f"is {jobs}", "at least 1", "Choose another value.")
    arms = window_policies(policy, windows, unpruned=unpruned)
    folders = {arm: out / arm for arm in arms}
    common = {"model": model, "data": data, "teacher": teacher, "prompt": prompt, "split": split, "seed": seed}
    common |= {"max_frames": max_frames, "device": device, "video": False}
    evaluate_in_jobs([{**common, "out": folders[arm], "policy": arms[arm]} for arm in arms], jobs)
    results = {arm: read_results(folder / RESULTS_FILE) for arm, folder in folders.items()}
    rows = window_rows(folders, results)
    clips = len(next(iter(results["exact"].models.values())).clips)
    paths = write_window(out, rows, clips)
    print(f"\n{window_table(rows, clips).markdown()}")
    print("\n".join(f"table     {path}" for path in paths))
