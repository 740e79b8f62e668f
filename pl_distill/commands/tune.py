"""`pl-distill tune`: thresholds of a SAM 3, and switches of its streaming, on labelled clips; one table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from datamodules.splits import Part
from pl_distill.errors import ConfigError
from pl_distill.evaluation.evaluate import DEFAULT_POLICY, RESULTS_FILE
from pl_distill.evaluation.jobs import evaluate_in_jobs
from pl_distill.evaluation.results import read_results
from pl_distill.evaluation.tuning import (
    AS_IT_IS,
    CONFIG,
    combinations,
    tuning_rows,
    tuning_table,
    without_switches,
    write_tuning,
    write_variant,
)
from pl_distill.models.sam3_load import load_config
from pl_distill.models.sam3_source import check_source
from pl_distill.streaming import PruningPolicy


def tune(
    model: str,
    data: Path,
    out: Path,
    grid: Mapping[str, Sequence[float]] | None = None,
    switches: bool = False,
    prompt: str = "pig",
    split: Part = "val",
    max_frames: int | None = None,
    policy: PruningPolicy = DEFAULT_POLICY,
    device: str = "auto",
    seed: int = 0,
    jobs: int = 1,
) -> None:
    """Choose from which score on a SAM 3 believes a detection, begins a track, and puts a track right.

    Streams the clips once for every combination of the values, and as the model is. Writes tune.json and tune.md; what
    a killed run finished is not repeated. The best values belong into the model's config.json; each combination's lies
    in OUT/<combination>/model.
    Example: pl-distill tune --model pen_teacher --data SHARDS --out runs/tune --grid.new_det_thresh=[0.4,0.5]

    Args:
        model: A SAM 3: folder or shipped model.
        data: Folder of shards.
        out: Folder of everything that is made, a folder for each combination.
        grid: Name of a number in config.json -> values to try, such as new_det_thresh, high_conf_thresh,
            high_iou_thresh, score_threshold_detection, det_nms_thresh, recondition_every_nth_frame.
        switches: Whether to run without each of the policy's switches, too: retirement, appearance and
            fuse_boxes (where the policy has them), suppress_duplicates, fill_holes, one_to_one, protect_memories,
            full_window, skip_blank; and without any, as transformers alone does if the policy is otherwise the default.
        prompt: What to look for.
        split: Part of the shards to score; not the one on which the model is judged afterwards.
        max_frames: Only the first so many frames of each clip.
        policy: What the tracker forgets, when tracks end, and whether animals are recognised by their looks.
        device: cpu, cuda, cuda:1, or auto.
        seed: Of torch's generator.
        jobs: Processes that stream at a time.
    """
    if not grid and not switches:
        raise ConfigError("--grid", "is empty", "a threshold with values", "Try --grid.new_det_thresh=[0.3,0.4,0.5].")
    if jobs < 1:
        raise ConfigError("--jobs", f"is {jobs}", "at least 1", "Choose another value.")
    folder = Path(check_source(model))
    if not folder.is_dir():  # the hub's cache has of a model only the files that something has asked for
        fix = f"Run `hf download {model} --local-dir {folder.name}`."
        raise ConfigError("--model", f"is {model!r}, a name on the hub", "a local folder or a shipped model", fix)
    load_config(folder)  # refuses what is no SAM 3, by name
    arms = combinations(json.loads((folder / CONFIG).read_text(encoding="utf-8")), grid or {})
    common = {"data": data, "prompt": prompt, "split": split, "seed": seed}
    common |= {"max_frames": max_frames, "device": device, "video": False}
    evaluations = {}
    for arm, change in arms.items():
        variant = str(write_variant(folder, out / arm / "model", change))
        evaluations[arm] = {**common, "model": variant, "policy": policy, "out": out / arm}
    for arm, other in (without_switches(policy) if switches else {}).items():
        evaluations[arm] = {**evaluations[AS_IT_IS], "policy": other, "out": out / arm}
    evaluate_in_jobs(list(evaluations.values()), jobs)
    results = {arm: read_results(out / arm / RESULTS_FILE) for arm in evaluations}
    rows = tuning_rows(arms, results)
    clips = len(results[rows[0].arm].models["model"].clips)
    paths = write_tuning(out, rows, clips)
    print(f"\n{tuning_table(rows, clips).markdown()}")
    print("\n".join(f"table     {path}" for path in paths))
