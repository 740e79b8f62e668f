"""A record for people: one page of pictures, embeddings for TensorBoard's projector, associations in words."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date
from html import escape
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.tensorboard import SummaryWriter

from datamodules.clip import Image
from datamodules.files import atomic_path, file_name_of
from pl_distill.evaluation.record_plots import behaviours_in, canvas, draw_drift, draw_heat_map, draw_timeline
from pl_distill.reid.association import Association
from pl_distill.reid.daily import DailyTable, zone_of
from pl_distill.reid.identities import events, former_names
from pl_distill.reid.outcomes import Outcome
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.record_files import upsert
from pl_distill.reid.record_schema import BEHAVIOURS
from pl_distill.reid.thumbnails import Thumbnails

PAGE = "report.html"
_PROJECTED = 2000  # embeddings that the projector shows
_THUMBNAIL = 48


def write_record(folder: Path, hours: pd.DataFrame) -> None:
    """Write rows as a record."""
    upsert(folder, hours.to_dict("records"), BEHAVIOURS)


def describe(found: Association) -> str:
    """Say what was found, in words."""
    lines = [
        f"{found.kind}: {found.cases} of {found.animals} animals"
        + (f"; {found.left_out} repeated outcomes left out" if found.left_out else "")
    ]
    if found.detectable is not None:
        lines.append(
            f"one test alone finds an effect of {found.detectable:.1f} standard deviations with a power of 80 %"
        )
    for one in found.significant:
        before = found.shown_before(one.quantity)
        shown = "" if before is None else f"; shown from {before} days before"
        lines.append(
            f"  {one.quantity}: {one.effect:+.2f} SD ({one.low:+.2f} to {one.high:+.2f}) {one.lead_days} days before, "
            f"p {one.p_corrected:.3f} after correction{shown}"
        )
    if not found.significant:
        best = min(found.findings, key=lambda one: one.p_corrected, default=None)
        told = (
            ""
            if best is None
            else f"; nearest: {best.quantity}, {best.lead_days} days before, p {best.p_corrected:.2f}"
        )
        lines.append(f"  nothing at a level of {found.level:g} after correction{told}")
    return "\n".join(lines)


def write_associations(path: Path, results: Sequence[Association]) -> Path:
    """Write every finding as JSON."""
    content = {"schema": 1, "associations": [asdict(one) for one in results]}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)  # Infinity and NaN are no JSON
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def draw_page(
    out: Path,
    hours: pd.DataFrame,
    table: DailyTable,
    animals: Sequence[str],
    outcomes: Sequence[Outcome],
    pool: Path | None,
    timezone: str = "UTC",
) -> Path:
    """Draw every animal and put the pictures into one page.

    Args:
        out: Folder.
        hours: The record.
        table: The same by days.
        animals: Whom to draw.
        outcomes: What to mark.
        pool: Folder of the pool, for pictures and events.
        timezone: IANA name of the zone of the table's days.
    """
    changes: dict[str, list[tuple[np.datetime64, str]]] = {name: [] for name in animals}
    former: dict[str, list[str]] = {}
    if pool is not None:
        with EmbeddingPool(pool, read_only=True) as opened:
            for event in events(opened):
                for name in {*event.before.values(), *event.after.values()} & set(changes):
                    if event.kind != "link" and not event.undone:
                        when = event.time.replace(tzinfo=UTC).astimezone(zone_of(timezone)).replace(tzinfo=None)
                        changes[name].append((np.datetime64(when), f"{event.kind}: {event.reason}"))
            former = former_names(opened)
            project(out / "projector", opened)
    sections = []
    for name in animals:
        stem = file_name_of(name)
        pictures = [
            draw_timeline(out / f"timeline-{stem}.png", table, name, outcomes),
            *(
                [draw_heat_map(out / f"hours-{stem}.png", hours, name, timezone=timezone)]
                if behaviours_in(hours)
                else []
            ),
            draw_drift(out / f"drift-{stem}.png", table, name, outcomes, changes[name]),
        ]
        if pool is not None:
            days = [one.day for one in outcomes if one.animal == name]
            seen = draw_before_after(out / f"looks-{stem}.png", Thumbnails(pool, former), name, days)
            pictures += [seen] if seen else []
        sections.append((name, pictures))
    page = out / PAGE
    with atomic_path(page) as temporary:
        temporary.write_text(_html(sections, table, timezone), encoding="utf-8")
    return page


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
    with canvas(path, 1.5 * len(chosen), 2.1) as (axes,):
        for place, day in enumerate(chosen):
            picture = thumbnails.read(animal, day)
            inset = axes.inset_axes((place / len(chosen), 0, 0.95 / len(chosen), 0.9))
            inset.imshow(picture)
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


def project(folder: Path, pool: EmbeddingPool) -> None:
    """Write a pool's embeddings for TensorBoard's projector, each with the picture of its day.

    Args:
        folder: Log folder.
        pool: Its newest vectors are taken, as many of each animal.
    """
    if not pool.animals:
        return
    stored = pool.vectors(newest=max(1, _PROJECTED // len(pool.animals)))
    if not len(stored.ids):
        return
    pictures = Thumbnails(pool.path, former_names(pool))
    days = {name: pictures.days(name) for name in pool.animals}
    shown: dict[tuple[str, date], Image] = {}
    sprites = []
    for name, time_s in zip(stored.animals, stored.times_s, strict=True):
        day = pd.Timestamp(time_s, unit="s").date()
        nearest = min(days[str(name)], key=lambda one: abs((one - day).days), default=None)
        key = (str(name), nearest or date.min)
        if key not in shown:
            blank = np.full((_THUMBNAIL, _THUMBNAIL, 3), 128, np.uint8)
            picture = blank if nearest is None else pictures.read(str(name), nearest)
            shown[key] = np.asarray(cv2.resize(picture, (_THUMBNAIL, _THUMBNAIL)), np.uint8)
        sprites.append(shown[key])
    times = pd.to_datetime(stored.times_s, unit="s").strftime("%Y-%m-%d %H:%M")
    with SummaryWriter(str(folder)) as writer:
        writer.add_embedding(
            torch.from_numpy(stored.vectors),
            metadata=[[str(name), when] for name, when in zip(stored.animals, times, strict=True)],
            metadata_header=["animal", "time"],
            label_img=torch.from_numpy(np.stack(sprites)).permute(0, 3, 1, 2).float() / 255,
            tag="pool",
        )


def _html(sections: Sequence[tuple[str, Sequence[Path]]], table: DailyTable, timezone: str) -> str:
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Animal record</title>",
        "<style>body{font:16px system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#22262c}"
        "img{width:100%;height:auto;margin:.6rem 0}nav a{margin-right:1rem}</style>",
        f"<h1>Animal record</h1><p>{len(table.animals)} animals, {table.days[0]} to {table.days[-1]}; times are of "
        f"{escape(timezone)}, days of looks UTC. Dashed red lines are outcomes of the farm's table.</p><nav>",
        *(f"<a href='#{number}'>{escape(name)}</a>" for number, (name, _) in enumerate(sections)),
        "</nav>",
    ]
    for number, (name, pictures) in enumerate(sections):
        parts.append(f"<h2 id='{number}'>{escape(name)}</h2>")
        for picture in pictures:
            data = base64.b64encode(picture.read_bytes()).decode()
            parts.append(f"<img alt='{escape(picture.stem)}' src='data:image/png;base64,{data}'>")
    return "\n".join([*parts, "</html>"])
