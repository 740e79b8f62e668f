"""`pl-distill ablate`: train students that differ in their loss on one cache, score them all, and write one table."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.files import sha256_of, write_json
from datamodules.pen import EVALUATION_SEED
from datamodules.shard_manifest import ShardManifest
from datamodules.splits import Part
from pl_distill import __version__
from pl_distill.commands.lightning import run_lightning
from pl_distill.commands.parsing import find_recipe, shipped_recipes
from pl_distill.commands.steps import Steps
from pl_distill.errors import ConfigError
from pl_distill.evaluation.ablation import Share, format_markdown, make_table, tracking_shares, write_table
from pl_distill.evaluation.evaluate import RESULTS_FILE, evaluate
from pl_distill.evaluation.results import read_results
from pl_distill.models.sam3 import read_trunk_sha256
from pl_distill.modules.feature_scores import feature_shares

REFERENCE = "full"
"""The arm that trains the recipe as it is."""

ARMS = "distill/ablation"


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
) -> None:
    """Train students that differ in their loss on one cache, score them all, and write one table.

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
    """
    if seeds < 1:
        raise ConfigError("--seeds", f"is {seeds}", "at least 1", "Three show how much of a difference is chance.")
    overlays = find_arms(arms)
    manifest = ShardManifest.load(shards)
    common: dict[str, Any] = {
        "version": __version__,
        "teacher_trunk_sha256": read_trunk_sha256(teacher),
        "shards_sha256": manifest.sha256,
        "recipe": sha256_of(Path(find_recipe(recipe))),
        "trainer": sha256_of(Path(find_recipe(trainer))),
        "max_steps": max_steps,
        "batch_size": batch_size,
        "split": split,
        "max_frames": max_frames,
        "prompt": prompt,
    }
    options = [f"--model.teacher={teacher}", f"--data.shards={shards}", f"--data.cache={cache}"]
    options += [] if max_steps is None else [f"--trainer.max_steps={max_steps}"]
    options += [] if batch_size is None else [f"--data.batch_size={batch_size}"]
    cells: dict[str, list[dict[str, dict[str, Share]]]] = {arm: [] for arm in overlays}
    spent: dict[str, float] = dict.fromkeys(overlays, 0.0)
    for seed in range(seeds):
        for arm, overlay in overlays.items():
            print(f"\n{arm}, seed {seed} (cell {seed * len(overlays) + list(overlays).index(arm) + 1} of "
                  f"{seeds * len(overlays)})", flush=True)  # fmt: skip
            folder = out / arm / f"seed-{seed}"
            settings = common | {"arm": None if overlay is None else sha256_of(Path(overlay)), "seed": seed}
            steps = Steps(folder / "cell.json", settings, total=2)
            words = ["--config", recipe, "--config", trainer, *([] if overlay is None else ["--config", overlay])]
            words += [*options, f"--seed_everything={seed}", f"--data.seed={seed}"]
            steps.run("train", "distil", folder / "features.json", partial(_train, folder, words))
            _share_replays(out, folder)
            score = partial(
                evaluate, folder / "student", shards, folder, teacher, prompt, split, max_frames, seed=EVALUATION_SEED
            )
            steps.run("evaluate", "stream and score", folder / RESULTS_FILE, partial(score, video=False))
            cells[arm].append(_read_cell(folder))
            spent[arm] += sum(step.seconds for step in steps.done.values())
        done = seed + 1
        shown = {
            "recipe": recipe,
            "teacher": f"{teacher} (trunk {common['teacher_trunk_sha256'][:12]})",
            **{name: common[name] for name in ("version", "max_steps", "batch_size", "split", "max_frames", "prompt")},
        }
        seconds = {arm: round(total / done, 1) for arm, total in spent.items()}
        table = make_table(cells, REFERENCE, range(done), shown, seconds)
        paths = write_table(out, table)
    print(f"\n{format_markdown(table)}")
    print("\n".join(f"table     {path}" for path in paths))
    print(f"curves    tensorboard --logdir {out}")


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


def _train(folder: Path, words: Sequence[str]) -> None:
    run = run_lightning(["fit", *words, f"--trainer.default_root_dir={folder / 'logs'}", "--ckpt_path=last"])
    run.model.save_pretrained(folder / "student")
    shares = feature_shares(run.model, run.datamodule.val_dataloader())
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
