"""`pl-distill transfer`: score a model on unseen pens of every domain, one table."""

import json
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datamodules.edinburgh import read_edinburgh
from datamodules.pen import EVALUATION_SEED, load_pen_config
from datamodules.pen.writer import SCENE, scene_sha256
from datamodules.pen_training import DrawnPen, draw_pens
from datamodules.shards import write_shards
from datamodules.splits import DateRange, Split, format_day
from pl_distill.errors import ConfigError
from pl_distill.evaluation.evaluate import DEFAULT_POLICY, RESULTS_FILE
from pl_distill.evaluation.jobs import evaluate_in_jobs
from pl_distill.evaluation.models import plan_models
from pl_distill.evaluation.results import read_results
from pl_distill.evaluation.transfer import domain_gaps, format_transfer, transfer_rows, write_transfer
from pl_distill.models.sam3_source import find_file
from pl_distill.streaming import PruningPolicy

DOMAINS = ("day", "dusk", "straw", "black-coat", "low-camera", "crowded", "sheep", "farm-b")
FIRST_DAY = date(2026, 3, 1)


def transfer(
    model: str,
    out: Path,
    teacher: str | None = None,
    domains: Sequence[str] = DOMAINS,
    clips: int = 6,
    frames: int = 300,
    seed: int = 0,
    prompt: str = "pig",
    policy: PruningPolicy = DEFAULT_POLICY,
    video: bool = False,
    jobs: int = 2,
    replays: Path | None = None,
) -> None:
    """Score a model, or a student and its teacher, on unseen pens of several domains.

    Each clip shows another herd, with seeds that training refuses; the n-th clips of all domains are of one seed and
    day, and show the same herd unless species, farm or its size differ. Writes transfer.json and transfer.md. What a
    killed run finished is not repeated; clips of another length, seed or recipe need an --out of their own.
    Example: pl-distill transfer --model pen_teacher --out runs/transfer --clips 6 --frames 300

    Args:
        model: A SAM 3 (folder, hub name or shipped model), or a student (folder, shipped, or a checkpoint).
        out: Folder of everything that is made, a folder for each domain.
        teacher: The SAM 3 to compare with; a student knows its own.
        domains: Names in configs/pen or paths of .yaml files; the others are compared with the first.
        clips: Of each domain.
        frames: Of each clip; those in --out must have as many.
        seed: The first herd; below 1,000,000.
        prompt: What to look for, also where the animals are none.
        policy: What the tracker forgets, when tracks end, and whether animals are recognised by their looks.
        video: Whether to write annotated videos.
        jobs: Processes that draw and stream at a time.
        replays: --out of another transfer: what it has of the same model, policy and clips is taken instead of being
            streamed again, such as the teacher's tracks for the student of another seed.
    """
    for option, value in (("clips", clips), ("frames", frames), ("jobs", jobs)):
        if value < 1:
            raise ConfigError(f"--{option}", f"is {value}", "at least 1", "Choose another value.")
    if not 0 <= seed < EVALUATION_SEED:
        raise ConfigError("--seed", f"is {seed}", f"0 to {EVALUATION_SEED - 1}", "Choose another value.")
    if not domains:
        raise ConfigError("--domains", "names none", "one or more", "Name one, or leave it out for all.")
    folders = {load_pen_config(domain).domain: out / load_pen_config(domain).domain for domain in domains}
    if len(folders) < len(domains):
        names = ", ".join(load_pen_config(domain).domain for domain in domains)
        raise ConfigError(
            "--domains", f"names {names}", "each once", "Leave one out, or give its recipe a `domain` of its own."
        )
    known = {domain: _replays_of(domain, replays) for domain in folders}
    if replays is not None and not any(known.values()):
        found = f"{replays} has none of {', '.join(folders)}"
        raise ConfigError("--replays", found, "--out of another transfer", "Correct the path.")
    days = [format_day(FIRST_DAY + timedelta(days=number)) for number in range(clips)]
    division = Split("transfer", (), (), (DateRange(FIRST_DAY, FIRST_DAY + timedelta(days=clips - 1)),))
    shards = f"shards-{clips}"
    pens = {
        domain: [DrawnPen(domain, None, EVALUATION_SEED + seed + number, day) for number, day in enumerate(days)]
        for domain in domains
    }
    for domain, folder in zip(domains, folders.values(), strict=True):  # of all, before the first is drawn
        for number, pen in enumerate(pens[domain]):
            _refuse_another(folder / "clips", pen, number, frames)
    for source in plan_models(model, teacher):  # a wrong path shows now, not after the drawing
        find_file(source.teacher or source.source, "config.json")
    with tqdm(total=len(domains) * clips, desc="draw", unit="clip") as bar:

        def advance(pens: int) -> None:
            bar.update(pens)

        for domain, folder in zip(domains, folders.values(), strict=True):
            draw_pens(folder / "clips", pens[domain], frames_per_pen=frames, processes=jobs, progress=advance)
            # a run with another number of clips may have left more of them there, and shards that are not of these
            wanted = [clip for clip in read_edinburgh(folder / "clips") if clip.day in days]
            write_shards(wanted, division, folder / shards)
    common: dict[str, Any] = {"model": model, "teacher": teacher, "prompt": prompt, "video": video, "policy": policy}
    common["seed"] = EVALUATION_SEED + seed
    evaluations = [
        {**common, "data": folder / shards, "out": folder, "replays": known[domain]}
        for domain, folder in folders.items()
    ]
    evaluate_in_jobs(evaluations, jobs)
    results = {domain: read_results(folder / RESULTS_FILE) for domain, folder in folders.items()}
    rows, gaps = transfer_rows(results), domain_gaps(results)
    paths = write_transfer(out, rows, gaps)
    print(f"\n{format_transfer(rows, gaps)}")
    print("\n".join(f"table     {path}" for path in paths))


def _refuse_another(clips: Path, pen: DrawnPen, number: int, frames: int) -> None:
    """Refuse to draw a clip where an earlier run left another one: `draw_pens` would put the new one in its place.

    Raises:
        ConfigError: The clip there has another length, seed or recipe.
    """
    name = f"{pen.day}/000000"
    try:
        scene = json.loads((clips / name / SCENE).read_text(encoding="utf-8"))
        found, drawn_frames, drawn_seed = scene["sha256"], scene["frames"], scene["seed"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # nothing is there, or what `draw_pens` does not replace
    config = load_pen_config(pen.domain)
    if found == scene_sha256(config, name, pen.seed, frames):
        return
    there = f"{name} in {clips}"
    if drawn_frames != frames:
        given = f"is {frames}, and {there} has {drawn_frames} frames"
        raise ConfigError("--frames", given, f"{drawn_frames}", f"Give another --out, or --frames {drawn_frames}.")
    if drawn_seed != pen.seed:
        seed, earlier = (value - EVALUATION_SEED - number for value in (pen.seed, drawn_seed))
        given = f"is {seed}, and {there} is of --seed {earlier}"
        raise ConfigError("--seed", given, f"{earlier}", f"Give another --out, or --seed {earlier}.")
    given = f"draws {config.domain} otherwise than {there}"
    raise ConfigError("--domains", given, "the recipe of an earlier run", "Give another --out, or delete that folder.")


def _replays_of(domain: str, replays: Path | None) -> Path | None:
    """Return another transfer's folder of a domain; None where it has not streamed that."""
    folder = None if replays is None else replays / domain
    return folder if folder is not None and (folder / "tracks").is_dir() else None
