"""One HTML file that tells what an evaluation found, to someone who did not run it; nothing in it is loaded."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from datamodules.files import atomic_path
from pl_distill.errors import ConfigError
from pl_distill.evaluation.behaviour_tables import behaviour_tables
from pl_distill.evaluation.caveats import count_of, one_seed
from pl_distill.evaluation.clip_files import ReplayRecord, read_record
from pl_distill.evaluation.curves import read_curves
from pl_distill.evaluation.failure_gallery import Gallery, describe, make_gallery
from pl_distill.evaluation.headline import BASELINE_COLUMNS, baseline_rows, columns, headline
from pl_distill.evaluation.paper import paper_rows
from pl_distill.evaluation.plots import (
    MAX_CURVES,
    Drawing,
    Records,
    draw_curves,
    draw_domains,
    draw_errors,
    draw_memory,
    draw_scores,
    draw_session,
    draw_slowest,
    draw_time,
    draw_tracks,
)
from pl_distill.evaluation.real_size import count_real_size
from pl_distill.evaluation.report_pictures import PicturedClip, Strip, read_pictures, read_strips
from pl_distill.evaluation.results import ModelResult, Results, read_results
from pl_distill.evaluation.seeds import check_seeds, seed_table
from pl_distill.evaluation.statistics import PairedDifference, compare_models
from pl_distill.evaluation.tables import ReportTable, read_report_tables
from pl_distill.evaluation.trackers import BASELINES
from pl_distill.evaluation.transfer import domain_scores

REPORT_FILE = "report.html"
MAX_LISTED = 200
"""Errors of each model in the folded list."""


@dataclass(frozen=True)
class _Tracker:
    """A tracker of the table by clip: ours or a baseline, with the role of its network."""

    role: str
    label: str
    model: ModelResult


def report(
    results: str | Path,
    out: str | Path | None = None,
    logs: str | Path | None = None,
    seeds: Sequence[str | Path] = (),
    extras: Sequence[str | Path] = (),
) -> Path:
    """Write the report of an evaluation.

    Args:
        results: A results.json, or the folder that holds it; tracks and pictures are looked for beside it.
        out: The HTML file; None: ``report.html`` beside the results.
        logs: A folder with TensorBoard logs of the training; None: whatever lies beside the results.
        seeds: Results of the same clips with students of other seeds: the differences are those over all of them.
        extras: Folders with more to show: ``transfer.json`` and every ``*.table.json``; those beside the results are
            shown anyway.

    Returns:
        Where the report is.

    Raises:
        ResultsError: The results are absent or damaged.
        ConfigError: `logs` was given and holds no training curves, `seeds` are of other clips or teachers or one of
            them twice, or an extra holds nothing.
    """
    path = _results_file(results)
    content = read_results(path)
    runs = [content, *(read_results(_results_file(seed)) for seed in seeds)]
    places = [Path(results), *map(Path, seeds)]
    if seeds:
        check_seeds(runs, places)
    folder = path.parent
    curves = read_curves(folder if logs is None else Path(logs))
    if logs is not None and not curves:
        raise ConfigError(
            "logs", f"{logs} holds no train/ or val/ scalars", "a folder with TensorBoard logs of `fit`", "Correct it."
        )
    records, lost = _read_records(folder, content)
    notes = _join_notes(runs, places)
    if lost:
        notes.append(
            f"{lost} records of replays are not beside the results any more: plots and pictures are incomplete."
        )
    gallery = make_gallery(folder, content)
    pictures, damaged_pictures = read_pictures(folder, content)
    strips, damaged_strips = read_strips(folder, gallery)
    if damaged := damaged_pictures + damaged_strips:
        notes.append(f"Pictures beside the results that are damaged and left out: {damaged}.")
    tables, domains = _read_extras([folder, *map(Path, extras)])
    named = behaviour_tables(content)
    if seeds:
        named = [replace(table, title=f"{table.title} (first of {len(runs)} seeds)") for table in named]
    tables = [*named, *tables]
    drawings = _draw(content, records)
    drawings["domains"] = [one for metric in domains if (one := draw_domains(domains[metric], metric)) is not None]
    differences = compare_models(runs) if "student" in content.models else []
    target = folder / REPORT_FILE if out is None else Path(out)
    page = _render(
        content,
        drawings=drawings,
        curves=draw_curves(curves),
        curves_left_out=max(0, len(curves) - MAX_CURVES),
        pictures=pictures,
        notes=notes,
        differences=differences,
        seeds=seed_table(runs, places) if seeds else None,
        seed_count=len(runs),
        tables=tables,
        gallery=gallery,
        strips=strips,
    )
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _results_file(place: str | Path) -> Path:
    return Path(place) / "results.json" if Path(place).is_dir() else Path(place)


def _join_notes(runs: Sequence[Results], places: Sequence[Path]) -> list[str]:
    """Return what one of the runs warns of: each thing once, with the places of its runs where others do not say it.

    Where there are several, none of them speaks of its one seed.
    """
    said: dict[str, list[str]] = {}
    for run, place in zip(runs, places, strict=True):
        for note in dict.fromkeys(run.notes):
            if len(runs) == 1 or note != one_seed(run.models):
                said.setdefault(note, []).append(str(place))
    return [note if len(found) == len(runs) else f"{', '.join(found)}: {note}" for note, found in said.items()]


def _read_extras(folders: Sequence[Path]) -> tuple[list[ReportTable], dict[str, dict[str, dict[str, float]]]]:
    """Read the tables of some folders, and the scores by domain of the first that has some; the first may be empty."""
    domains: dict[str, dict[str, dict[str, float]]] = {}
    for number, folder in enumerate(folders):
        scores = {label: domain_scores(folder, metric) for label, metric in (("MOTA", "mota"), ("IDF1", "idf1"))}
        if number and not scores["MOTA"] and not read_report_tables([folder]):
            expected = "a folder that `transfer`, `window` or another command wrote"
            raise ConfigError("extras", f"{folder} holds no transfer.json and no table", expected, "Correct it.")
        if scores["MOTA"] and not domains:
            domains = scores
    return read_report_tables(list(dict.fromkeys(folders))), domains


def _read_records(folder: Path, results: Results) -> tuple[Records, int]:
    """Read the records that are still there, and count those that are not."""
    records: dict[str, dict[str, ReplayRecord]] = {}
    lost = 0
    for role, model in (results.models | results.baselines).items():
        for name, clip in model.clips.items():
            try:
                found = None if clip.replay is None else read_record(folder / clip.replay.record)
            except (OSError, ValueError, TypeError, KeyError):
                lost += 1
            else:
                if found is not None:
                    records.setdefault(role, {})[name] = found
    return records, lost


def _trackers(results: Results) -> list[_Tracker]:
    """Return ours of each network, each followed by its baselines."""
    found = []
    for role, model in results.models.items():
        found.append(_Tracker(role, role, model))
        for name, text in BASELINES.items():
            if f"{role}-{name}" in results.baselines:
                found.append(_Tracker(role, f"{role}, {text.label}", results.baselines[f"{role}-{name}"]))
    return found


def _prose(text: str) -> Markup:
    """Escape a sentence and set what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _draw(results: Results, records: Records) -> dict[str, list[Drawing]]:
    scores = [
        draw_scores(results.models, "mota", "MOTA by clip"),
        draw_scores(results.models, "idf1", "IDF1 by clip"),
        draw_scores(results.models, "hota", "HOTA by clip"),
        draw_errors(results.models),
    ]
    ours = {role: clips for role, clips in records.items() if role in results.models}
    course = [draw_time(ours), draw_slowest(ours), draw_session(records), draw_memory(ours), draw_tracks(ours)]
    return {
        "scores": [drawing for drawing in scores if drawing is not None],
        "course": [drawing for drawing in course if drawing is not None],
    }


def _render(
    results: Results,
    *,
    drawings: Mapping[str, list[Drawing]],
    curves: list[Drawing],
    curves_left_out: int,
    pictures: list[PicturedClip],
    notes: list[str],
    differences: list[PairedDifference],
    seeds: ReportTable | None,
    seed_count: int,
    tables: list[ReportTable],
    gallery: Gallery | None,
    strips: list[Strip],
) -> str:
    package = files("pl_distill.evaluation")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = Markup  # our own plots; everything else on the page is escaped
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.filters["score"] = lambda value: "–" if value is None else f"{value:.2f}"  # noqa: RUF001
    environment.filters["prose"] = _prose
    environment.filters["describe"] = describe
    environment.filters["counted"] = count_of
    environment.filters["gib"] = lambda value: f"{value / 2**30:.2f}"
    template = environment.from_string((package / "report.html.j2").read_text(encoding="utf-8"))
    first = next(iter(results.models.values()))
    context: dict[str, Any] = {
        "style": Markup((package / "report.css").read_text(encoding="utf-8")),
        "results": results,
        "settings": results.settings,
        "roles": list(results.models),
        "clips": list(first.clips),
        "frames": sum(clip.replay.frames for clip in first.clips.values() if clip.replay is not None),
        "days": len({clip.replay.day for clip in first.clips.values() if clip.replay is not None}),
        "columns": columns(results),
        "rows": headline(results),
        "baselines": baseline_rows(results),
        "baseline_columns": BASELINE_COLUMNS,
        "baseline_texts": list(BASELINES.values()),
        "paper": paper_rows(results, count_real_size()),
        "differences": differences,
        "seeds": seeds,
        "seed_count": seed_count,
        "trackers": _trackers(results),
        "tables": tables,
        "gallery": gallery,
        "strips": strips,
        "max_listed": MAX_LISTED,
        "drawings": drawings,
        "curves": curves,
        "curves_left_out": curves_left_out,
        "pictures": pictures,
        "notes": notes,
    }
    return template.render(context)
