"""`pl-distill ablate`: train students that differ in one thing, their loss say, score them all, and write one table."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.cache_manifest import MANIFEST, CacheManifest
from datamodules.distillation import DistillationDataModule
from datamodules.files import sha256_of, write_json
from datamodules.pen import EVALUATION_SEED
from datamodules.shard_manifest import ShardManifest
from datamodules.splits import Part
from pl_distill import __version__
from pl_distill.commands.lightning import run_lightning
from pl_distill.commands.parsing import find_recipe, shipped_recipes
from pl_distill.commands.steps import Steps
from pl_distill.errors import ConfigError
from pl_distill.evaluation.ablation import (
    AblationTable,
    Share,
    format_markdown,
    make_table,
    tracking_shares,
    write_table,
)
from pl_distill.evaluation.evaluate import RESULTS_FILE, evaluate
from pl_distill.evaluation.results import read_results
from pl_distill.models.sam3 import read_sam3_sha256
from pl_distill.modules.feature_scores import feature_shares

REFERENCE = "full"
"""The arm that trains the recipe as it is."""

ARMS = "distill/ablation"


@dataclass(frozen=True)
class Arm:
    """What an arm changes.

    Args:
        overlay: A recipe that goes over the first; None for the recipe as it is.
        cache: The feature shards that it learns from.
    """

    overlay: str | None
    cache: Path


def ablate(
    teacher: str,
    shards: Path,
    cache: Path,
    out: Path,
    arms: Sequence[str] | None = None,
    seeds: int = 3,
    recipe: str = "distill/pen.yaml",
    trainer: str = "trainer/cpu.yaml",
    max_steps: int | None = None,
    batch_size: int | None = None,
    split: Part = "test",
    max_frames: int | None = None,
    prompt: str = "pig",
    caches: Mapping[str, Path] | None = None,
    max_minutes: float | None = None,
) -> None:
    """Train students that differ in one thing, their loss say, score them all, and write one table.

    Each cell (an arm with a seed) is trained, compared with the teacher's maps of the validation clips, put into SAM 3
    and streamed over the clips of `split`. Finished cells are reused and a killed one goes on from its last checkpoint;
    more arms or seeds can be asked for later. Writes ablation.json and ablation.md: the mean of each arm, and its
    difference to `full` with a 95 % interval, paired over days and seeds. The table is written anew after each seed.
    Example: pl-distill ablate --teacher T --shards S --cache C --out runs/ablation --max_steps 600

    Args:
        teacher: The SAM 3 that made the cache, a folder or hub name.
        shards: Image shards.
        cache: Their feature shards.
        out: Folder of everything that is made.
        arms: Names in configs/distill/ablation, or other recipes, shipped or of one's own, such as
            distill/options/average.yaml or distill/pen_dual.yaml: what they say goes over recipe and trainer. `full`,
            the recipe as it is, is always among them. By default all of configs/distill/ablation.
        seeds: How many; cell n has the seed n.
        recipe: Module and data.
        trainer: Hardware and callbacks.
        max_steps: Optimiser steps of each cell; by default the recipe's.
        batch_size: Frames per step; by default the recipe's.
        split: Part of the shards that is streamed and scored.
        max_frames: Only the first so many frames of each of its clips.
        prompt: What to look for.
        caches: Further arms, by name: the recipe as it is on another cache of the same teacher, such as
            '{"int8": "features-int8"}'. Its maps are compared with those of `cache`, too.
        max_minutes: After so many minutes no further cell is begun: run the same command again to go on.
    """
    if seeds < 1:
        raise ConfigError("--seeds", f"is {seeds}", "at least 1", "Three show how much of a difference is chance.")
    chosen = {name: Arm(overlay, cache) for name, overlay in find_arms(arms).items()}
    for name, folder in (caches or {}).items():
        if name in chosen:
            raise ConfigError("--caches", f"names {name!r}, which is an arm", "another name", "Rename it.")
        chosen[name] = Arm(None, folder)
    manifest = ShardManifest.load(shards)
    common: dict[str, Any] = {
        "version": __version__,
        "teacher_sha256": read_sam3_sha256(teacher),
        "shards_sha256": manifest.sha256,
        "recipe": sha256_of(Path(find_recipe(recipe))),
        "trainer": sha256_of(Path(find_recipe(trainer))),
        "max_steps": max_steps,
        "batch_size": batch_size,
        "split": split,
        "max_frames": max_frames,
        "prompt": prompt,
    }
    options = [f"--model.teacher={teacher}", f"--data.shards={shards}"]
    options += [] if max_steps is None else [f"--trainer.max_steps={max_steps}"]
    options += [] if batch_size is None else [f"--data.batch_size={batch_size}"]
    arm_sha256 = {
        name: {
            "arm": None if arm.overlay is None else sha256_of(Path(arm.overlay)),
            "cache_sha256": _cache_sha256(arm.cache),
        }
        for name, arm in chosen.items()
    }
    cells: dict[str, list[dict[str, dict[str, Share]]]] = {name: [] for name in chosen}
    spent: dict[str, float] = dict.fromkeys(chosen, 0.0)
    begin = time.monotonic()
    paths: tuple[Path, ...] = ()
    table = None
    for seed in range(seeds):
        for number, (name, arm) in enumerate(chosen.items()):
            cell = seed * len(chosen) + number
            folder = out / name / f"seed-{seed}"
            steps = Steps(folder / "cell.json", common | arm_sha256[name] | {"seed": seed}, total=2)
            late = max_minutes is not None and time.monotonic() - begin > 60 * max_minutes
            if late and "evaluate" not in steps.done:
                print(f"\n{max_minutes:g} minutes are over, {cell} of {seeds * len(chosen)} cells are done; "
                      "run the same command again to go on")  # fmt: skip
                _tell(out, table, paths)
                return
            print(f"\n{name}, seed {seed} (cell {cell + 1} of {seeds * len(chosen)})", flush=True)
            words = ["--config", recipe, "--config", trainer]
            words += [] if arm.overlay is None else ["--config", arm.overlay]
            words += [*options, f"--data.cache={arm.cache}", f"--seed_everything={seed}", f"--data.seed={seed}"]
            steps.run("train", "distil", folder / "features.json", partial(_train, folder, words, shards, cache))
            _share_replays(out, folder)
            score = partial(
                evaluate, folder / "student", shards, folder, teacher, prompt, split, max_frames, seed=EVALUATION_SEED
            )
            steps.run("evaluate", "stream and score", folder / RESULTS_FILE, partial(score, video=False))
            cells[name].append(_read_cell(folder))
            spent[name] += sum(step.seconds for step in steps.done.values())
        done = seed + 1
        shown = {
            "recipe": recipe,
            "teacher": f"{teacher} ({common['teacher_sha256'][:12]})",
            **{name: common[name] for name in ("version", "max_steps", "batch_size", "split", "max_frames", "prompt")},
        }
        seconds = {arm: round(total / done, 1) for arm, total in spent.items()}
        table = make_table(cells, REFERENCE, range(done), shown, seconds)
        paths = write_table(out, table)
    _tell(out, table, paths)


def _tell(out: Path, table: AblationTable | None, paths: Sequence[Path]) -> None:
    if table is not None:
        print(f"\n{format_markdown(table)}")
        print("\n".join(f"table     {path}" for path in paths))
    print(f"curves    tensorboard --logdir {out}")


def _cache_sha256(cache: Path) -> str:
    """Identify a finished cache by its manifest, which holds the hash of every shard."""
    CacheManifest.load(cache)
    return sha256_of(cache / MANIFEST)


def find_arms(names: Sequence[str] | None) -> dict[str, str | None]:
    """Return the recipe that each arm lays over the first, None for `full`, which comes first.

    Raises:
        ConfigError: There is no such arm, or two have one name.
    """
    shipped = {path.stem: str(path) for path in sorted((shipped_recipes() / ARMS).glob("*.yaml"))}
    found: dict[str, str | None] = {REFERENCE: None}
    for name in shipped if names is None else names:
        arm = Path(name).stem
        if name == REFERENCE:
            continue
        try:
            path = shipped.get(name) or find_recipe(name)
        except ConfigError as error:
            known = f"{REFERENCE}, {', '.join(shipped)} or a recipe"
            raise ConfigError("--arms", f"names {name!r}", known, "Correct it.") from error
        if arm in found:
            raise ConfigError("--arms", f"names {arm!r} twice", "each once", "Rename one of the files.")
        found[arm] = path
    return found


def _train(folder: Path, words: Sequence[str], shards: Path, cache: Path) -> None:
    run = run_lightning(["fit", *words, f"--trainer.default_root_dir={folder / 'logs'}", "--ckpt_path=last"])
    run.model.save_pretrained(folder / "student")
    # Every arm is compared with the same maps, whatever it has learned from.
    maps = DistillationDataModule(str(shards), str(cache), run.datamodule.batch_size, run.datamodule.num_workers)
    shares = feature_shares(run.model, maps.val_dataloader())
    write_json(
        folder / "features.json",
        {name: {clip: asdict(share) for clip, share in clips.items()} for name, clips in shares.items()},
    )


def _read_cell(folder: Path) -> dict[str, dict[str, Share]]:
    features = json.loads((folder / "features.json").read_text(encoding="utf-8"))
    shares = {name: {clip: Share(**share) for clip, share in clips.items()} for name, clips in features.items()}
    return shares | tracking_shares(read_results(folder / RESULTS_FILE))


def _share_replays(out: Path, folder: Path) -> None:
    """Let the evaluations of all cells find the teacher's tracks in one place: it is the same teacher every time."""
    for kind in ("tracks", "pictures"):
        shared, link = out / "teacher" / kind, folder / kind / "teacher"
        shared.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(shared.resolve(), target_is_directory=True)
