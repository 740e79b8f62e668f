"""What animals look like, for people: pictures over time, embeddings in TensorBoard's projector and in a plane."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from datamodules.clip import Image
from pl_distill.evaluation.record_plots import canvas
from pl_distill.reid.daily import zone_of
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.thumbnails import Thumbnails

_PROJECTED = 2000  # embeddings that are shown
_THUMBNAIL = 48
_COLOURED = 20  # animals with a colour of their own: more cannot be told apart
_IN_PLANE = 12  # pictures that are placed in the plane
_PICTURE_INCHES, _TITLE_INCHES = 1.5, 4.5
_APART = 0.14  # of its width and height, so that no picture hides another


@dataclass(frozen=True)
class Looks:
    """Embeddings of a pool, each with the picture of its day.

    Args:
        vectors: (N, D) embeddings.
        animals: (N,) whose.
        times_s: (N,) seconds since 1970 (UTC).
        pictures: (N,) small pictures, RGB, of the day that is nearest of those with one; None of animals without any.
    """

    vectors: NDArray[np.float32]
    animals: list[str]
    times_s: NDArray[np.float64]
    pictures: list[Image | None]


def read_looks(pool: EmbeddingPool) -> Looks | None:
    """Read a pool's newest embeddings, as many of each animal; None of a pool without any."""
    if not pool.animals:
        return None
    stored = pool.vectors(newest=max(1, _PROJECTED // len(pool.animals)))
    if not len(stored.ids):
        return None
    thumbnails = Thumbnails(pool.path, pool.owners())
    days = {name: thumbnails.days(name) for name in pool.animals}
    read: dict[tuple[str, date], Image] = {}
    pictures: list[Image | None] = []
    names = [str(name) for name in stored.animals]
    for name, time_s in zip(names, stored.times_s, strict=True):
        day = pd.Timestamp(time_s, unit="s").date()  # UTC, as the pictures' days
        nearest = min(days[name], key=lambda one: abs((one - day).days), default=None)
        if nearest is not None and (name, nearest) not in read:
            read[name, nearest] = thumbnails.read(name, nearest)
        pictures.append(None if nearest is None else read[name, nearest])
    return Looks(stored.vectors, names, stored.times_s, pictures)


def project(folder: Path, looks: Looks, timezone: str = "UTC") -> None:
    """Write embeddings for TensorBoard's projector.

    Args:
        folder: Log folder.
        looks: What to show.
        timezone: IANA name of the zone of the times beside them.
    """
    blank = np.full((_THUMBNAIL, _THUMBNAIL, 3), 128, np.uint8)
    sprites = [
        blank if picture is None else np.asarray(cv2.resize(picture, (_THUMBNAIL, _THUMBNAIL)), np.uint8)
        for picture in looks.pictures
    ]
    times = pd.to_datetime(looks.times_s, unit="s", utc=True).tz_convert(zone_of(timezone)).strftime("%Y-%m-%d %H:%M")
    shutil.rmtree(folder, ignore_errors=True)  # an older one's files would be shown beside
    with SummaryWriter(str(folder)) as writer:
        writer.add_embedding(
            torch.from_numpy(looks.vectors),
            metadata=[[name, when] for name, when in zip(looks.animals, times, strict=True)],
            metadata_header=["animal", f"time ({timezone})"],
            label_img=torch.from_numpy(np.stack(sprites)).permute(0, 3, 1, 2).float() / 255,
            tag="pool",
        )


def principal_plane(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Put vectors into the plane in which they differ most: places (N, 2), and each axis's share of the variance."""
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    places, shares = np.zeros((len(vectors), 2)), np.zeros(2)
    found = min(2, len(lengths))
    places[:, :found] = left[:, :found] * lengths[:found]
    shares[:found] = lengths[:found] ** 2 / max(float((lengths**2).sum()), 1e-12)
    return places, shares


def draw_embeddings(path: Path, looks: Looks, first: Sequence[str] = ()) -> Path:
    """Draw embeddings in their principal plane, one colour an animal, some with the picture of their day.

    Args:
        path: The PNG.
        looks: What to show.
        first: Animals that have a colour of their own where there are too many for all.
    """
    places, shares = principal_plane(looks.vectors)
    owners = np.array(looks.animals)
    everybody = sorted(set(looks.animals))
    named = sorted(sorted(everybody, key=lambda name: name not in first)[:_COLOURED])
    palette = colormaps["tab10" if len(named) <= 10 else "tab20"]
    colours = {name: palette(number) for number, name in enumerate(named)}
    with canvas(path, 11, 6.5) as (axes,):
        others = ~np.isin(owners, named)
        if others.any():
            label = f"{len(everybody) - len(named)} others"
            axes.scatter(*places[others].T, s=6, color="#ccc", lw=0, label=label)
        for name, colour in colours.items():
            axes.scatter(*places[owners == name].T, s=12, color=colour, lw=0, alpha=0.7, label=name)
        axes.margins(0.08)  # for pictures of points at the edge
        for place in _with_pictures(axes, places, looks, named):
            picture = looks.pictures[place]
            if picture is not None:
                small = OffsetImage(picture, zoom=_THUMBNAIL / max(picture.shape[:2]))
                frame = {"edgecolor": colours[looks.animals[place]], "linewidth": 2}
                axes.add_artist(AnnotationBbox(small, places[place], pad=0.1, bboxprops=frame))
        axes.set(
            title=f"{len(owners)} embeddings in the plane in which they differ most",
            xlabel=f"first principal axis ({100 * shares[0]:.0f} % of the variance)",
            ylabel=f"second ({100 * shares[1]:.0f} %)",
        )
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
    return path


def _with_pictures(axes: Axes, places: NDArray[np.float64], looks: Looks, named: Sequence[str]) -> list[int]:
    """Choose points whose pictures do not hide each other: each animal's middle, then what is furthest from those."""
    owners = np.array(looks.animals)
    shown = np.isin(owners, named) & np.array([picture is not None for picture in looks.pictures])
    places = places / np.ptp(np.array([axes.get_xlim(), axes.get_ylim()]), axis=1)
    nearest = np.where(shown, np.inf, 0)  # distance of each point from the chosen ones

    def choose(place: int) -> int:
        np.minimum(nearest, np.abs(places - places[place]).max(axis=1), out=nearest)
        return place

    chosen: list[int] = []
    for name in named:
        mine = np.flatnonzero(shown & (owners == name))
        if len(mine) and len(chosen) < _IN_PLANE:
            middle = mine[np.linalg.norm(places[mine] - np.median(places[mine], axis=0), axis=1).argmin()]
            if nearest[middle] >= _APART:
                chosen.append(choose(int(middle)))
    while len(chosen) < _IN_PLANE and nearest.max() >= _APART:
        chosen.append(choose(int(nearest.argmax())))
    return chosen


def draw_before_after(
    path: Path, thumbnails: Thumbnails, animal: str, events_on: Sequence[date] = (), most: int = 8
) -> Path | None:
    """Draw pictures of one animal over time, those before and after an event among them; None without pictures."""
    days = thumbnails.days(animal)
    if not days:
        return None
    wanted = {days[int(place)] for place in np.linspace(0, len(days) - 1, min(most, len(days)))}
    for event in events_on:
        before, after = [day for day in days if day < event], [day for day in days if day >= event]
        wanted |= set(before[-1:]) | set(after[:1])
    chosen = sorted(wanted)
    width = max(_TITLE_INCHES, _PICTURE_INCHES * len(chosen))
    share = _PICTURE_INCHES / width
    with canvas(path, width, 2.1) as (axes,):
        for place, day in enumerate(chosen):
            picture = thumbnails.read(animal, day)
            inset = axes.inset_axes((place * share, 0, 0.95 * share, 0.8))
            inset.imshow(picture)
            inset.set_anchor("N")
            inset.axis("off")
            told = "".join(
                f"\nafter {event}"
                for event in events_on
                if event <= day and not any(event <= other < day for other in chosen)
            )
            inset.set_title(f"{day}{told}", fontsize=8, loc="center", fontweight="normal")
        axes.axis("off")
        axes.set_title(f"{animal}: its looks over time")
    return path
