"""A year of drawn pens as embeddings: drawn sparsely, filled up between, so that it runs in minutes.

Every few days each pen is drawn for a few moments and its animals are embedded. Half of a day's views may enter the
archive, the other half are only ever asked about. A year of an archive has 61,320 vectors an animal at the paper's
rate, which nobody draws: a vector between two drawn days is the mean, weighted by time, of a view before and the view
after that is most like it. The archive is thus denser than what was drawn, but shows nothing that was not.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.crops import croppable
from datamodules.files import atomic_path
from datamodules.pen import EVALUATION_SEED, PenRenderer, Year, load_pen_config, simulate
from pl_distill.code_state import code_sha256
from pl_distill.errors import ConfigError
from pl_distill.models.embedder import Embedder
from pl_distill.reid.storage import Vectors, normalised
from pl_distill.reid.thumbnails import Thumbnails

DAY_S = 86_400.0
FIRST_DAY = date(2026, 1, 1)
_EPOCH_DAYS = (FIRST_DAY - date(1970, 1, 1)).days
_NOON_S = 12 * 3600
_BATCH = 256  # crops that are embedded at a time


@dataclass(frozen=True)
class YearPlan:
    """What is drawn.

    Args:
        pens: How many, each with the animals of its domain.
        domain: A name of configs/pen, or the path of a .yaml file.
        days: Length of the year.
        every_days: Of so many days two that follow each other are drawn: the pair shows what a single night does.
        views: Moments of a drawn day; even ones may enter the archive, odd ones are asked about.
        seconds_apart: Time between moments.
        seed: The first herd; 1,000,000 is added: embedders are trained on smaller seeds.
    """

    pens: int = 1
    domain: str = "day"
    days: int = 365
    every_days: int = 10
    views: int = 6
    seconds_apart: float = 3.0
    seed: int = 500

    def __post_init__(self) -> None:
        if min(self.pens, self.every_days, self.days // max(self.every_days, 1)) < 1 or self.views < 2:
            found = f"is {self.pens} pens, every {self.every_days} of {self.days} days, {self.views} views"
            raise ConfigError("--plan", found, "1 pen, 1 day and 2 views or more", "Correct it.")
        if not 0 <= self.seed < EVALUATION_SEED:
            raise ConfigError("plan.seed", f"is {self.seed}", f"0 to {EVALUATION_SEED - 1}", "Choose another.")

    @property
    def drawn_days(self) -> list[int]:
        """Numbers of the drawn days, from 0."""
        first = range(0, self.days, self.every_days)
        return sorted({day + later for day in first for later in (0, 1) if day + later < self.days})


@dataclass(frozen=True)
class DrawnYear:
    """Embeddings of what was drawn; N of them.

    Args:
        names: (A,) of the animals.
        pens: (A,) number of each animal's pen.
        animals: (N,) number of the animal.
        days: (N,) number of the day.
        views: (N,) number of the moment in its day.
        vectors: (N, D), unit length.
        embedder: Identity of the embedder.
    """

    names: tuple[str, ...]
    pens: NDArray[np.int64]
    animals: NDArray[np.int64]
    days: NDArray[np.int64]
    views: NDArray[np.int64]
    vectors: Vectors
    embedder: str

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Which are queries: (N,); the others may enter an archive."""
        odd: NDArray[np.bool_] = self.views % 2 == 1
        return odd


def time_of(day: float) -> float:
    """Give noon of a day in seconds since 1970 (UTC)."""
    return (_EPOCH_DAYS + day) * DAY_S + _NOON_S


def draw_year(plan: YearPlan, embedder: Embedder, folder: Path, progress: Callable[[int], None]) -> DrawnYear:
    """Draw and embed; what a killed run drew is not drawn again, nor for another embedder that wants the same crops.

    Args:
        plan: What to draw.
        embedder: Describes the animals.
        folder: Gets one file of crops a pen, and thumbnails.
        progress: Called with the number of days that a pen has got.
    """
    names: list[str] = []
    pens: list[int] = []
    parts = []
    drawn_by = {"pen_config": asdict(load_pen_config(plan.domain)), "code_sha256": code_sha256(["datamodules/pen"])}
    for pen in range(plan.pens):
        wanted = {**drawn_by, **asdict(plan), "pens": 1, "pen": pen}
        key = json.dumps({**wanted, **asdict(embedder.cropping), "size": embedder.image_size}, sort_keys=True)
        path = folder / f"pen-{pen:03d}.npz"
        drawn = _read_part(path, key)
        if drawn is None:
            drawn = _draw_pen(plan, pen, embedder, Thumbnails(folder), progress)
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, key=np.array(key), **drawn)
        else:
            progress(len(plan.drawn_days))
        crops = torch.from_numpy(drawn["crops"])
        vectors = np.concatenate([embedder.embed(part).cpu().numpy() for part in torch.split(crops, _BATCH)])
        parts.append((drawn["animals"] + len(names), drawn["days"], drawn["views"], vectors))
        names += [str(name) for name in drawn["names"]]
        pens += [pen] * len(drawn["names"])
    animals, days, views, vectors = (np.concatenate(part) for part in zip(*parts, strict=True))
    return DrawnYear(tuple(names), np.array(pens), animals, days, views, vectors, embedder.identity)


class Archive:
    """Gives vectors for any time of the year, from what was drawn before and after it.

    Args:
        year: What was drawn; only views that may enter an archive are used.
        seed: Of the choice of views.
    """

    def __init__(self, year: DrawnYear, seed: int = 0) -> None:
        self._seed = seed
        self._of: list[list[tuple[int, Vectors]]] = []
        for animal in range(len(year.names)):
            mine = (year.animals == animal) & ~year.asked
            days = np.unique(year.days[mine])
            self._of.append([(int(day), year.vectors[mine & (year.days == day)]) for day in days])

    def vectors(self, animal: int, days: NDArray[np.float64]) -> Vectors:
        """Give one vector (N, D) for each time, in days of the year.

        A time after the last drawn day shows that day; one before the first the first.
        """
        drawn = self._of[animal]
        starts = np.array([day for day, _ in drawn])
        rng = np.random.default_rng((self._seed, animal))
        chance = rng.random(len(days))
        before = np.clip(np.searchsorted(starts, days, side="right") - 1, 0, len(starts) - 1)
        found = np.empty((len(days), drawn[0][1].shape[1]), np.float32)
        for place in np.unique(before):
            rows = np.flatnonzero(before == place)
            day, views = drawn[place]
            chosen = (chance[rows] * len(views)).astype(int)
            if place + 1 == len(drawn):
                found[rows] = views[chosen]
                continue
            next_day, next_views = drawn[place + 1]
            partner = next_views[(views @ next_views.T).argmax(1)]
            share = np.clip((days[rows] - day) / (next_day - day), 0, 1)[:, None].astype(np.float32)
            found[rows] = (1 - share) * views[chosen] + share * partner[chosen]
        return normalised(found)


def sampling_days(days: int, per_hour: int) -> NDArray[np.float64]:
    """Give the times of a full archive, in days."""
    return np.arange(days * 24 * per_hour) / (24 * per_hour)


def _draw_pen(
    plan: YearPlan, pen: int, embedder: Embedder, thumbnails: Thumbnails, progress: Callable[[int], None]
) -> dict[str, NDArray[Any]]:
    config, seed = load_pen_config(plan.domain), EVALUATION_SEED + plan.seed + pen
    every = max(1, round(plan.seconds_apart * config.fps))
    year = Year()
    names = [f"pen-{pen:03d}-{number:02d}" for number in range(config.num_animals)]
    rows: list[tuple[int, int, int]] = []
    crops: list[Tensor] = []
    for day in plan.drawn_days:
        clip = f"day-{day:03d}"
        when = f"{FIRST_DAY + timedelta(days=day):%Y_%m_%d}"
        renderer = PenRenderer(config, seed, when, clip, year.on(day, seed))
        for state in simulate(config, seed, (plan.views - 1) * every + 1, clip):
            if state.index % every:
                continue
            frame = renderer.render(state)
            seen = np.flatnonzero(frame.visible)
            boxes, masks = frame.boxes_xyxy[seen], frame.masks[seen]
            used = masks if embedder.cropping.needs_masks else None
            seen = seen[croppable(boxes, (config.height, config.width), used)]
            boxes, masks = frame.boxes_xyxy[seen], frame.masks[seen]
            cut = embedder.crop(frame.image, boxes, masks if embedder.cropping.needs_masks else None)
            for row, crop in zip(seen, cut, strict=True):
                number = frame.codes[row] - 1
                rows.append((number, day, state.index // every))
                crops.append(crop)
                if state.index == 0:
                    thumbnails.offer(names[number], time_of(day), crop.permute(1, 2, 0).numpy())
        progress(1)
    animals, days, views = np.array(rows, np.int64).T
    return {
        "names": np.array(names),
        "animals": animals,
        "days": days,
        "views": views,
        "crops": torch.stack(crops).numpy(),
    }


def _read_part(path: Path, key: str) -> dict[str, NDArray[Any]] | None:
    """Give what was drawn before of the same plan, for embedders that want the same crops."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["key"]) != key:
            return None
        return {name: stored[name] for name in ("names", "animals", "days", "views", "crops")}
