"""Drawn pens as training data: many herds, each seen briefly, written into shards like a farm's recordings.

Each pen has a day of its own, so that the split by day holds whole herds apart. Feeder and toy are labelled beside the
animals, under their own names, because a detector that is asked for words has to tell them apart.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from datamodules.clip import RLE, Annotation, Clip
from datamodules.edinburgh import read_edinburgh
from datamodules.errors import UserError
from datamodules.files import write_json
from datamodules.pen import EVALUATION_SEED, draw_pen, load_pen_config
from datamodules.processes import die_with_parent
from datamodules.splits import DateRange, Split, format_day

FIRST_DAY = date(2001, 1, 1)
UNSEEN_DOMAINS = ("sheep", "farm-b")
"""Shipped domains that are for evaluation alone: what trains on pens refuses them by name."""


@dataclass(frozen=True)
class PenShare:
    """A number of pens of one kind.

    Args:
        domain: Name of a domain, or the path of its YAML file.
        pens: How many, each with other animals.
        num_animals: Instead of the domain's; 0 is an empty pen.
    """

    domain: str
    pens: int
    num_animals: int | None = None


@dataclass(frozen=True)
class DrawnPen:
    """One pen to draw: its domain, herd size, seed, and the day that stands for it."""

    domain: str
    num_animals: int | None
    seed: int
    day: str


def plan_pens(train: Sequence[PenShare], val: Sequence[PenShare], first_seed: int) -> tuple[list[DrawnPen], Split]:
    """Give each pen a seed and a day, training first, and the split that tells them apart.

    Raises:
        UserError: A seed or a domain is one of those that are kept for evaluation, or a part has no pen.
    """
    for part, given in (("train", train), ("val", val)):
        if kept := sorted({share.domain for share in given} & set(UNSEEN_DOMAINS)):
            raise UserError(
                f"data.{part}",
                f"draws {' and '.join(kept)}",
                f"domains other than {' and '.join(UNSEEN_DOMAINS)}",
                "Take it out: these are for evaluation, as pens that no model has seen.",
            )
    shares = [share for share in (*train, *val) for _ in range(share.pens)]
    counts = [sum(share.pens for share in part) for part in (train, val)]
    if min(counts) < 1:
        raise UserError("pens", f"are {counts[0]} to train and {counts[1]} to validate", "at least 1 each", "Add some.")
    last = first_seed + len(shares) - 1
    if first_seed < 0 or last >= EVALUATION_SEED:
        raise UserError(
            "pens",
            f"would use seeds {first_seed} to {last}",
            f"seeds from 0 to {EVALUATION_SEED - 1}",
            "Choose a smaller first_seed: the seeds above are for evaluation.",
        )
    days = [FIRST_DAY + timedelta(days=number) for number in range(len(shares))]
    pens = [
        DrawnPen(share.domain, share.num_animals, first_seed + number, format_day(days[number]))
        for number, share in enumerate(shares)
    ]
    border = counts[0]
    split = Split(
        "pen-training",
        train=(DateRange(days[0], days[border - 1]),),
        val=(DateRange(days[border], days[-1]),),
        test=(),
    )
    return pens, split


def has_animals(pen: DrawnPen) -> bool:
    """Whether a pen is not an empty one, by its plan or else by its domain."""
    return (load_pen_config(pen.domain).num_animals if pen.num_animals is None else pen.num_animals) > 0


def remember_plan(folder: Path, pens: Sequence[DrawnPen], **how: object) -> None:
    """Write ``pens.json``: what a folder of drawings holds, with the content of each domain and how it is drawn.

    Args:
        folder: Of the drawings; made if need be.
        pens: Which are drawn.
        **how: Whatever else their pictures depend on, as plain values.

    Raises:
        UserError: The folder holds others, or drawings of the same ones before a domain or the drawing changed.
    """
    plan = folder / "pens.json"
    domains = {domain: load_pen_config(domain).sha256 for domain in sorted({pen.domain for pen in pens})}
    wanted = {**how, "pens": [asdict(pen) for pen in pens], "domains": domains}
    found: dict[str, Any] = json.loads(plan.read_text(encoding="utf-8")) if plan.is_file() else wanted
    before = found.setdefault("domains", domains)  # an older version did not say
    if found != wanted:
        changed = [domain for domain in domains if before.get(domain) != domains[domain]]
        other = {**found, "domains": domains} != wanted
        raise UserError(
            plan,
            "names other pens than the recipe" if other else f"is of drawings before {', '.join(changed)} changed",
            "the same ones", "Name another data.folder, or delete this one.",
        )  # fmt: skip
    write_json(plan, wanted)


def draw_pens(
    out: Path,
    pens: Sequence[DrawnPen],
    *,
    frames_per_pen: int,
    processes: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Draw one clip of each pen below `out`, in several processes; finished clips are kept.

    Args:
        out: Gets a folder per day.
        pens: From `plan_pens`.
        frames_per_pen: Pictures of each.
        processes: How many draw at a time.
        progress: Called with 1 after each pen.
    """
    with drawing_processes(processes) as pool:
        for done in as_completed([pool.submit(_draw, out, pen, frames_per_pen) for pen in pens]):
            done.result()
            if progress is not None:
                progress(1)


@contextmanager
def drawing_processes(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of so many processes; after an error or Ctrl-C what has not begun is not begun any more."""
    with ProcessPoolExecutor(processes, get_context("spawn"), die_with_parent, (os.getpid(),)) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _draw(out: Path, pen: DrawnPen, frames: int) -> None:
    config = load_pen_config(pen.domain)
    if pen.num_animals is not None:
        config = replace(config, num_animals=pen.num_animals)
    draw_pen(out, config, days=[pen.day], clips_per_day=1, frames_per_clip=frames, seed=pen.seed)


def read_pens_with_furniture(root: str | Path) -> list[Clip]:
    """Read drawn clips; feeder and toy are further identities ``feeder`` and ``toy``.

    Raises:
        ClipError: There is no clip, or a video is damaged.
        AnnotationError: Labels contradict their layout or their video.
    """
    return [_with_furniture(clip, Path(root) / clip.name) for clip in read_edinburgh(root)]


def _with_furniture(clip: Clip, folder: Path) -> Clip:
    furniture: Mapping[str, Mapping[str, RLE]] = json.loads((folder / "masks.json").read_text())["furniture"]
    every = json.loads((folder / "scene.json").read_text())["config"]["label_every"]
    # An empty pen has no object in its labels; each of its labelled frames is known to be without animals.
    labelled = range(0, clip.num_frames, every)
    return replace(
        clip,
        annotations={
            index: _add(
                clip.annotations.get(index, _NOTHING),
                {name: masks[str(index // every)] for name, masks in furniture.items() if str(index // every) in masks},
            )
            for index in labelled
        },
    )


_NOTHING = Annotation((), np.zeros((0, 4), np.float32), (), np.zeros(0, bool), ())


def _add(animals: Annotation, things: Mapping[str, RLE]) -> Annotation:
    if not things:
        return animals
    encoded = [{"size": mask["size"], "counts": mask["counts"].encode("ascii")} for mask in things.values()]
    boxes = coco.toBbox(encoded).reshape(-1, 4).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    assert animals.masks is not None
    return Annotation(
        identities=(*animals.identities, *things),
        boxes_xyxy=np.concatenate([animals.boxes_xyxy, boxes]),
        behaviours=(*animals.behaviours, *(None for _ in things)),
        visible=np.concatenate([animals.visible, np.ones(len(things), bool)]),
        masks=(*animals.masks, *things.values()),
    )
