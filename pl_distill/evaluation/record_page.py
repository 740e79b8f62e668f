"""A record for people: one page of pictures, associations in words."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from datamodules.files import atomic_path, file_name_of
from pl_distill.evaluation.record_looks import Looks, draw_before_after, draw_embeddings, project, read_looks
from pl_distill.evaluation.record_plots import (
    behaviours_in,
    draw_drift,
    draw_heat_map,
    draw_lead_times,
    draw_timeline,
)
from pl_distill.reid.association import Association
from pl_distill.reid.daily import DailyTable, zone_of
from pl_distill.reid.identities import events
from pl_distill.reid.outcomes import Outcome
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.record_files import upsert
from pl_distill.reid.record_schema import BEHAVIOURS
from pl_distill.reid.thumbnails import Thumbnails

PAGE = "report.html"
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#22262c}
h1,h2,a{overflow-wrap:anywhere}
nav a{margin-right:1rem;display:inline-block}
figure{margin:.6rem 0}
figcaption{color:#5a616b;font-size:.9rem;white-space:pre-line}
img{max-width:100%;height:auto}
@media(max-width:48rem){figure>div{overflow-x:auto}img{max-width:46rem}}
"""


class Picture(NamedTuple):
    """One picture of the page.

    Args:
        path: The PNG.
        alt: What it shows, for who cannot see it.
        caption: Below it.
    """

    path: Path
    alt: str
    caption: str = ""


class Section(NamedTuple):
    """One chapter of the page.

    Args:
        title: Its heading.
        pictures: One below the other.
        notes: Sentences above them.
    """

    title: str
    pictures: Sequence[Picture]
    notes: Sequence[str] = ()


def write_record(folder: Path, hours: pd.DataFrame) -> None:
    """Write rows as a record."""
    upsert(folder, hours.to_dict("records"), BEHAVIOURS)


def describe(found: Association) -> str:
    """Say what was compared and what was found, in words."""
    among = f"{found.kind}: {found.cases} cases among {found.animals} animals"
    if found.controls is None:
        lines = [f"{among}: the more they gained, by standard deviations of gain"]
    else:
        lines = [f"{among}, each compared with those without it on the same day, {found.controls:.0f} on average"]
    aside = {
        f"{found.without_past} animals without a past before it": found.without_past,
        f"{found.without_others} with too few others to compare with": found.without_others,
        f"{found.left_out} further outcomes of the same animals": found.left_out,
        f"{found.sound} lines of value 0, which say that there was nothing": found.sound,
    }
    if any(aside.values()):
        lines.append("  not among them: " + "; ".join(words for words, number in aside.items() if number))
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
    if found.significant:
        lines.append(
            f"  in brackets: {100 * (1 - found.level):g} % interval of that test alone, not corrected; of each "
            "quantity its strongest day, which chance makes look stronger"
        )
    else:
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
    content = {"schema": 2, "associations": [asdict(one) for one in results]}
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
    found: Sequence[Association] = (),
    untested: Sequence[str] = (),
) -> Path:
    """Draw every animal and put the pictures into one page.

    Args:
        out: Folder.
        hours: The record.
        table: The same by days.
        animals: Whom to draw.
        outcomes: What to mark.
        pool: Folder of the pool, for pictures, embeddings and events.
        timezone: IANA name of the zone of the table's days.
        found: How many days before the outcomes the whole record shows them.
        untested: Why it was not asked of other outcomes.
    """
    changes: dict[str, list[tuple[np.datetime64, str]]] = {name: [] for name in animals}
    owners: dict[int, str] = {}
    sections = [_lead_times(out, found, untested)] if found or untested else []
    if pool is not None:
        with EmbeddingPool(pool, read_only=True) as opened:
            for event in events(opened):
                for name in {*event.before.values(), *event.after.values()} & set(changes):
                    if event.kind != "link" and not event.undone:
                        when = event.time.replace(tzinfo=UTC).astimezone(zone_of(timezone)).replace(tzinfo=None)
                        changes[name].append((np.datetime64(when), f"{event.kind}: {event.reason}"))
            owners = opened.owners()
            looks = read_looks(opened)
        if looks is not None:
            project(out / "projector", looks, timezone)
            sections.append(_embeddings(out, looks, animals))
    for name in animals:
        stem = file_name_of(name)
        days = [one.day for one in outcomes if one.animal == name]
        drawn = draw_timeline(out / f"timeline-{stem}.png", table, name, outcomes)
        pictures = [Picture(drawn, f"{name} by days: what it does, the way it walks, its visits to feeder and drinker")]
        if behaviours_in(hours):
            drawn = draw_heat_map(out / f"hours-{stem}.png", hours, name, timezone=timezone)
            pictures.append(Picture(drawn, f"{name}: its main behaviours by day (across) and hour (down)"))
        drawn = draw_drift(out / f"drift-{stem}.png", table, name, outcomes, changes[name])
        pictures.append(Picture(drawn, f"{name} by days: how far its looks, and the others', are from the first day's"))
        if pool is not None:
            seen = draw_before_after(out / f"looks-{stem}.png", Thumbnails(pool, owners), name, days)
            pictures += [Picture(seen, f"{name}: pictures of some of its days, the first on the left")] if seen else []
        sections.append(Section(name, pictures))
    page = out / PAGE
    with atomic_path(page) as temporary:
        temporary.write_text(_html(sections, table, len(animals), timezone), encoding="utf-8")
    return page


def _lead_times(out: Path, found: Sequence[Association], untested: Sequence[str]) -> Section:
    pictures = [
        Picture(
            draw_lead_times(out / f"lead-{one.kind}.png", one),
            f"Days before {one.kind} was found, across, and how far those with it had moved from their own past, up",
            describe(one),
        )
        for one in found
    ]
    legend = (
        "Of all days of the record: how much further the animals with an outcome had moved from their own past than "
        "those without it on the same day. Red dots are significant after correction; the band is the interval of each "
        "day's test alone."
    )
    return Section(
        "Days before the outcomes", pictures, [legend] * bool(found) + [f"Not tested: {why}" for why in untested]
    )


def _embeddings(out: Path, looks: Looks, animals: Sequence[str]) -> Section:
    drawn = draw_embeddings(out / "embeddings.png", looks, animals)
    whose = sorted(set(looks.animals))
    alt = f"{len(looks.animals)} embeddings of {len(whose)} animals as dots in a plane, some with a picture"
    note = (
        "Each dot is an embedding of the pool, as in TensorBoard's projector; pictures are of its animal on that day."
    )
    return Section("Embeddings", [Picture(drawn, alt)], [note])


def _html(sections: Sequence[Section], table: DailyTable, shown: int, timezone: str) -> str:
    some = "" if shown == len(table.animals) else f", {shown} of them below"
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>Animal record</title><style>{_STYLE}</style>",
        f"<h1>Animal record</h1><p>{len(table.animals)} animals{some}; {table.days[0]} to {table.days[-1]}; times are "
        f"those of {escape(timezone)}, days of pictures UTC's. Dashed red lines are outcomes of the farm's table."
        "</p><nav>",
        *(f"<a href='#{number}'>{escape(one.title)}</a>" for number, one in enumerate(sections)),
        "</nav>",
    ]
    for number, one in enumerate(sections):
        parts.append(f"<h2 id='{number}'>{escape(one.title)}</h2>")
        parts += [f"<p>{escape(note)}</p>" for note in one.notes]
        for picture in one.pictures:
            data = base64.b64encode(picture.path.read_bytes()).decode()
            image = f"<div><img alt='{escape(picture.alt)}' src='data:image/png;base64,{data}'></div>"
            caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
            parts.append(f"<figure>{image}{caption}</figure>")
    return "\n".join([*parts, "</html>"])
