"""`pl-distill ablate`: train students that differ in one thing, their loss say, score them all, and write one table."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

import pl_distill
from datamodules.cache_manifest import MANIFEST, CacheManifest
from datamodules.files import sha256_of
from datamodules.shard_manifest import ShardManifest
from datamodules.splits import Part
from pl_distill.code_state import code_sha256
from pl_distill.commands.ablation_cell import Cell, Judge
from pl_distill.commands.lightning import count_devices
from pl_distill.commands.parsing import find_recipe, recipes_folder
from pl_distill.errors import ConfigError
from pl_distill.evaluation.ablation import AblationTable, format_markdown, make_table, write_table
from pl_distill.models.sam3 import read_sam3_sha256

REFERENCE = "full"
"""The arm that trains the recipe as it is."""

ARMS = "distill/ablation"

DECIDING = (
    "callbacks",
    "datamodules",
    "pl_distill/commands/ablation_cell.py",
    "pl_distill/commands/step_seed.py",
    "pl_distill/evaluation",
    "pl_distill/losses",
    "pl_distill/models",
    "pl_distill/modules",
    "pl_distill/streaming",
)
"""Where a change of the code may change what a cell learns, or how it is scored: cells of another state are refused."""

LIBRARIES = ("torch", "timm", "transformers", "lightning", "numpy")
"""Cells that were made with other versions of these are refused, too."""


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
    more arms or seeds can be asked for later, and the same command, started several times, shares the cells among its
    processes. Cells of other data, recipes, code or libraries are refused. Writes ablation.json and ablation.md: the
    mean of each arm, and its difference to `full` with a 95 % interval, paired over days and seeds. The table is
    written anew after each seed.
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
        trainer: Hardware and callbacks; one device. For several, start the command once for each.
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
    common: dict[str, Any] = {
        "version": pl_distill.__version__,
        "code_sha256": code_sha256(DECIDING),
        **{name: version(name) for name in LIBRARIES},
        "teacher_sha256": read_sam3_sha256(teacher),
        "shards_sha256": ShardManifest.load(shards).sha256,
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
    judge = Judge(teacher, shards, cache, prompt, split, max_frames)
    rows: list[list[Cell]] = []  # one for each seed
    for seed in range(seeds):
        rows.append([])
        for name, arm in chosen.items():
            words = ["--config", recipe, "--config", trainer]
            words += [] if arm.overlay is None else ["--config", arm.overlay]
            words += [*options, f"--data.cache={arm.cache}", f"--seed_everything={seed}", f"--data.seed={seed}"]
            settings = common | {
                "arm": None if arm.overlay is None else sha256_of(Path(arm.overlay)),
                "cache_sha256": _cache_sha256(arm.cache),
                "seed": seed,
            }
            rows[-1].append(Cell(name, seed, out, words, settings, judge))
    _refuse_several_devices(rows)
    shown = {
        "recipe": recipe,
        "teacher": f"{teacher} ({common['teacher_sha256'][:12]})",
        **{name: common[name] for name in ("version", "max_steps", "batch_size", "split", "max_frames", "prompt")},
    }
    finished = _make(rows, None if max_minutes is None else 60 * max_minutes, partial(_write, out, shown))
    if not finished:
        print("\nrun the same command again to go on")
    table, paths = _write(out, shown, rows)
    if table is not None:
        print(f"\n{format_markdown(table)}")
        print("\n".join(f"table     {path}" for path in paths))
    print(f"curves    tensorboard --logdir {out}")


def _refuse_several_devices(rows: Sequence[Sequence[Cell]]) -> None:
    """Refuse a training that Lightning would spread: it starts the whole command again for each further device.

    Args:
        rows: The cells of each seed; an arm that is finished is not asked, its table can be read on any machine.

    Raises:
        ConfigError: An arm would be trained on several devices, or its recipes cannot be built.
    """
    for cell in {cell.arm: cell for row in rows for cell in row if not cell.done}.values():
        devices = count_devices(["fit", *cell.words])
        if devices > 1:
            raise ConfigError(
                "trainer.devices",
                f"puts a cell of {cell.arm} on {devices} devices",
                "one device for each cell",
                "Take trainer/gpu_1.yaml, and start the same command once for each device: they share the cells.",
            )


def _make(
    rows: Sequence[Sequence[Cell]], limit_s: float | None, write: Callable[[Sequence[Sequence[Cell]]], object]
) -> bool:
    """Make the cells seed by seed, first those that no other process has in hand, then what these have left.

    Args:
        rows: The cells of each seed.
        limit_s: After so many seconds no further cell is begun.
        write: Writes the table, after each cell that completes a seed.

    Returns:
        Whether all of them are made.
    """
    cells = [cell for row in rows for cell in row]
    begin = time.monotonic()
    for wait in (False, True):
        for number, cell in enumerate(cells, start=1):
            if cell.done:
                continue
            if limit_s is not None and time.monotonic() - begin > limit_s:
                count = sum(cell.done for cell in cells)
                print(f"\n{limit_s / 60:g} minutes are over, {count} of {len(cells)} cells are done")
                return False
            print(f"\n{cell.arm}, seed {cell.seed} (cell {number} of {len(cells)})", flush=True)
            if not cell.make(wait=wait):
                print("another process has it in hand", flush=True)
            elif all(other.done for other in rows[cell.seed]):
                write(rows)
    return True


def _write(
    out: Path, shown: Mapping[str, Any], rows: Sequence[Sequence[Cell]]
) -> tuple[AblationTable | None, Sequence[Path]]:
    """Write the table of all seeds that are complete, if there are any."""
    complete = list(takewhile(lambda row: all(cell.done for cell in row), rows))
    if not complete:
        return None, ()
    arms: dict[str, list[Cell]] = {cells[0].arm: list(cells) for cells in zip(*complete, strict=True)}
    table = make_table(
        {arm: [cell.read() for cell in cells] for arm, cells in arms.items()},
        REFERENCE,
        [cell.seed for cell in arms[REFERENCE]],
        shown,
        {arm: round(sum(cell.seconds for cell in cells) / len(cells), 1) for arm, cells in arms.items()},
    )
    return table, write_table(out, table)


def _cache_sha256(cache: Path) -> str:
    """Identify a finished cache by its manifest, which holds the hash of every shard."""
    CacheManifest.load(cache)
    return sha256_of(cache / MANIFEST)


def find_arms(names: Sequence[str] | None) -> dict[str, str | None]:
    """Return the recipe that each arm lays over the first, None for `full`, which comes first.

    Raises:
        ConfigError: There is no such arm, or two have one name.
    """
    shipped = {path.stem: str(path) for path in sorted((recipes_folder() / ARMS).glob("*.yaml"))}
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
