"""One HTML file that tells what an evaluation found, to someone who did not run it; nothing in it is loaded."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from datamodules.clip import Image
from datamodules.files import atomic_path
from datamodules.images import encode_jpeg, read_image
from pl_distill.errors import ConfigError
from pl_distill.evaluation.clip_files import ReplayRecord, read_record
from pl_distill.evaluation.curves import read_curves
from pl_distill.evaluation.headline import columns, headline
from pl_distill.evaluation.paper import paper_rows
from pl_distill.evaluation.plots import (
    Drawing,
    Records,
    draw_curves,
    draw_errors,
    draw_memory,
    draw_scores,
    draw_slowest,
    draw_time,
    draw_tracks,
)
from pl_distill.evaluation.results import ClipResult, Results, read_results
from pl_distill.evaluation.statistics import compare_models

REPORT_FILE = "report.html"
MAX_PICTURED_CLIPS = 6
_PICTURE_WIDTH = 720
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class PicturedFrame:
    """One frame as each model saw it: role -> data URL."""

    frame: int
    urls: dict[str, str]


@dataclass(frozen=True)
class PicturedClip:
    """The pictures of one clip."""

    name: str
    frames: list[PicturedFrame]


def report(results: str | Path, out: str | Path | None = None, logs: str | Path | None = None) -> Path:
    """Write the report of an evaluation.

    Args:
        results: A results.json, or the folder that holds it; tracks and pictures are looked for beside it.
        out: The HTML file; None: ``report.html`` beside the results.
        logs: A folder with TensorBoard logs of the training; None: whatever lies beside the results.

    Returns:
        Where the report is.

    Raises:
        ResultsError: The results are absent or damaged.
        ConfigError: `logs` was given and holds no training curves.
    """
    path = Path(results) / "results.json" if Path(results).is_dir() else Path(results)
    content = read_results(path)
    folder = path.parent
    curves = read_curves(folder if logs is None else Path(logs))
    if logs is not None and not curves:
        raise ConfigError(
            "logs", f"{logs} holds no train/ or val/ scalars", "a folder with TensorBoard logs of `fit`", "Correct it."
        )
    records, lost = _read_records(folder, content)
    pictures = _read_pictures(folder, content)
    notes = list(content.notes)
    if lost:
        notes.append(
            f"{lost} records of replays are not beside the results any more: plots and pictures are incomplete."
        )
    target = folder / REPORT_FILE if out is None else Path(out)
    page = _render(content, _draw(content, records), draw_curves(curves), pictures, notes)
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _read_records(folder: Path, results: Results) -> tuple[Records, int]:
    """Read the records that are still there, and count those that are not."""
    records: dict[str, dict[str, ReplayRecord]] = {}
    lost = 0
    for role, model in results.models.items():
        for name, clip in model.clips.items():
            try:
                found = None if clip.replay is None else read_record(folder / clip.replay.record)
            except (OSError, ValueError, TypeError, KeyError):
                lost += 1
            else:
                if found is not None:
                    records.setdefault(role, {})[name] = found
    return records, lost


def _read_pictures(folder: Path, results: Results) -> list[PicturedClip]:
    """Read the pictures of the clips with the lowest MOTA of the student (or the only model), the worst first."""
    judged = list(results.models.values())[-1]

    def score(item: tuple[str, ClipResult]) -> float:
        return float("inf") if item[1].scores.mota is None else item[1].scores.mota

    pictured = []
    for name, _ in sorted(judged.clips.items(), key=score)[:MAX_PICTURED_CLIPS]:
        frames: dict[int, dict[str, str]] = {}
        for role, model in results.models.items():
            replay = model.clips[name].replay if name in model.clips else None
            for frame, picture in (replay.pictures if replay else {}).items():
                if (folder / picture).is_file():
                    frames.setdefault(int(frame), {})[role] = _data_url(read_image(folder / picture))
        if frames:
            pictured.append(PicturedClip(name, [PicturedFrame(frame, frames[frame]) for frame in sorted(frames)]))
    return pictured


def _data_url(image: Image) -> str:
    height, width = image.shape[:2]
    if width > _PICTURE_WIDTH:
        size = (_PICTURE_WIDTH, round(height * _PICTURE_WIDTH / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(image.dtype, copy=False)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, _JPEG_QUALITY)).decode("ascii")


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
    course = [draw_time(records), draw_slowest(records), draw_memory(records), draw_tracks(records)]
    return {
        "scores": [drawing for drawing in scores if drawing is not None],
        "course": [drawing for drawing in course if drawing is not None],
    }


def _render(
    results: Results,
    drawings: Mapping[str, list[Drawing]],
    curves: list[Drawing],
    pictures: list[PicturedClip],
    notes: list[str],
) -> str:
    package = files("pl_distill.evaluation")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = Markup  # our own plots; everything else on the page is escaped
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.filters["score"] = lambda value: "–" if value is None else f"{value:.2f}"  # noqa: RUF001
    environment.filters["prose"] = _prose
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
        "paper": paper_rows(results),
        "differences": compare_models([results]) if "student" in results.models else [],
        "drawings": drawings,
        "curves": curves,
        "pictures": pictures,
        "notes": notes,
    }
    return template.render(context)
