"""The report's plots: scores and errors by clip, time, memory and number of tracks along the clip, training curves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import median

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from pl_distill.evaluation.clip_files import ReplayRecord
from pl_distill.evaluation.curves import Curves
from pl_distill.evaluation.results import ModelResult
from pl_distill.evaluation.svg import COLOUR_OF, GRID, INK, MUTED, STUDENT, TEACHER, plot

MAX_CLIPS = 20
"""Clips in a plot by clip; of more, those where the models differ most, or where the only one is worst."""

MAX_CURVES = 9
"""Quantities of a training that are drawn, the first of `Curves`."""

_MAX_NAME = 28  # letters of a clip's name: a whole path would take the plot's width


@dataclass(frozen=True)
class Drawing:
    """A plot for the page.

    Args:
        title: What is seen.
        caption: How to read it.
        svg: The element.
    """

    title: str
    caption: str
    svg: str


Records = Mapping[str, Mapping[str, ReplayRecord]]
"""Role -> clip -> record."""


def draw_scores(models: Mapping[str, ModelResult], metric: str, title: str) -> Drawing | None:
    """Draw a score of each clip, a dot per model and a line between them; None where no clip has it."""
    values: dict[str, list[tuple[str, float]]] = {}
    for role, model in models.items():
        for name, clip in model.clips.items():
            value = getattr(clip.scores, metric)
            if value is not None:
                values.setdefault(name, []).append((role, value))
    if not values:
        return None
    alone = len(models) == 1
    # on top the widest gap, or the lowest score
    clips = sorted(values, key=lambda name: -values[name][0][1] if alone else _gap(values[name]))[-MAX_CLIPS:]
    with plot(f"by-clip-{metric}", 70 + 22 * len(clips)) as drawing:
        axes = drawing.axes
        for row, name in enumerate(clips):
            numbers = [value for _, value in values[name]]
            axes.plot([min(numbers), max(numbers)], [row, row], color=GRID, linewidth=4, solid_capstyle="round")
        for role in models:
            dots = [(value, row) for row, name in enumerate(clips) for found, value in values[name] if found == role]
            x, y = zip(*dots, strict=True) if dots else ((), ())
            axes.plot(x, y, "o", markersize=7, color=COLOUR_OF[role], label=role, alpha=0.9)
        axes.set_yticks(range(len(clips)), [_end_of(name) for name in clips])
        axes.set_ylim(-0.7, len(clips) - 0.3)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("%")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        _legend(axes, len(models))
    which = "with the lowest score" if alone else "where the models differ most"
    few = "" if len(values) <= MAX_CLIPS else f" The {MAX_CLIPS} of {len(values)} clips {which}."
    return Drawing(title, f"Each clip against truth; higher is better.{few}", drawing.svg)


def draw_errors(models: Mapping[str, ModelResult]) -> Drawing | None:
    """Draw what MOTA subtracts, as parts of the animals to be found; None where there are none."""
    kinds = (("misses", "misses"), ("false_positives", "false positives"), ("id_switches", "ID switches"))
    judged = {role: model.overall for role, model in models.items() if model.overall.truth_boxes}
    if not judged:
        return None
    width = 0.8 / len(judged)
    with plot("errors") as drawing:
        for number, (role, scores) in enumerate(judged.items()):
            heights = [100 * getattr(scores, name) / scores.truth_boxes for name, _ in kinds]
            places = [kind + (number - (len(judged) - 1) / 2) * width for kind in range(len(kinds))]
            bars = drawing.axes.bar(places, heights, width * 0.92, color=COLOUR_OF[role], label=role)
            drawing.axes.bar_label(bars, [f"{height:.1f}" for height in heights], color=MUTED, fontsize=10)
        drawing.axes.set_xticks(range(len(kinds)), [label for _, label in kinds])
        drawing.axes.set_ylabel("% of animals")
        drawing.axes.margins(y=0.12)
        drawing.axes.grid(visible=False, axis="x")
        _legend(drawing.axes, len(judged))
    return Drawing(
        "What costs MOTA", "Errors per hundred animals to be found; MOTA is 100 less their sum.", drawing.svg
    )


def draw_time(records: Records) -> Drawing | None:
    """Draw milliseconds per frame along the clip."""
    svg = _along_clip("time", records, lambda record: record.update_ms, "ms per frame", from_zero=True)
    caption = "Time in the tracker. Bold: median over clips; thin: each clip. Flat is good: it does not slow down."
    return None if svg is None else Drawing("Time per frame", caption, svg)


def draw_slowest(records: Records) -> Drawing | None:
    """Draw the share of frames that take longer than a given time."""
    times = {
        role: sorted(ms for record in clips.values() for ms in record.update_ms) for role, clips in records.items()
    }
    if not any(times.values()):
        return None
    with plot("slowest") as drawing:
        for role, values in times.items():
            shares = [100 * (1 - number / len(values)) for number in range(len(values))]
            drawing.axes.plot(values, shares, color=COLOUR_OF[role], label=role)
        drawing.axes.set_xlim(left=0)
        drawing.axes.set_ylim(0, 103)
        drawing.axes.set_xlabel("ms")
        drawing.axes.set_ylabel("% of frames take at least")
        _legend(drawing.axes, len(times))
    return Drawing("Slow frames", "A steep fall is good: every frame takes about the same time.", drawing.svg)


def draw_memory(records: Records) -> Drawing | None:
    """Draw the resident set along the clip."""

    def gibibytes(record: ReplayRecord) -> list[float]:
        return [value / 2**30 for value in record.rss_bytes if value is not None]

    svg = _along_clip("memory", records, gibibytes, "resident set, GiB", from_zero=False)
    caption = (
        "Memory of the whole process after each frame, the encoder of the annotated video included. "
        "Bold: median over clips; thin: each clip."
    )
    return None if svg is None else Drawing("Memory", caption, svg)


def draw_session(records: Records) -> Drawing | None:
    """Draw what the trackers keep between frames, baselines dashed; None where nobody keeps anything."""
    middles = {
        role: [median([value for value in column if value is not None]) for column in zip_longest(*series)]
        for role, clips in records.items()
        if (series := [record.session_bytes for record in clips.values()])
    }
    shown = {role: values for role, values in middles.items() if max(values, default=0) > 0 and "-iou" not in role}
    if not shown:
        return None
    with plot("session") as drawing:
        for role, values in shown.items():
            network, _, baseline = role.partition("-")
            style = "--" if baseline else "-"
            drawing.axes.plot([v / 2**20 for v in values], style, color=COLOUR_OF[network], label=role)
        if any("-" in role for role in shown):  # a baseline keeps a hundred times as much
            _use_decades(drawing.axes)
        else:
            drawing.axes.set_ylim(bottom=0)
        drawing.axes.set_xlabel("frame of the clip")
        drawing.axes.set_ylabel("MiB")
        _legend(drawing.axes, max(len(shown), 1), columns=2)
    caption = "Tensors that are kept for the next frames, median over clips. Flat is good: it can run for days."
    if any("-" in role for role in shown):
        caption += " Dashed: transformers' own session, which forgets nothing."
    return Drawing("What streaming must remember", caption, drawing.svg)


def draw_domains(scores: Mapping[str, Mapping[str, float]], metric: str) -> Drawing | None:
    """Draw a score of each domain, a dot per model.

    Args:
        scores: Domain -> role -> percentage.
        metric: Its name.
    """
    roles = [role for role in COLOUR_OF if any(role in found for found in scores.values())]
    if not roles:
        return None
    domains = list(scores)[::-1]  # the first on top
    with plot(f"domains-{metric.lower()}", 70 + 24 * len(domains)) as drawing:
        axes = drawing.axes
        for row, domain in enumerate(domains):
            numbers = [scores[domain][role] for role in roles if role in scores[domain]]
            if numbers:
                axes.plot([min(numbers), max(numbers)], [row, row], color=GRID, linewidth=4, solid_capstyle="round")
        for role in roles:
            dots = [(scores[domain][role], row) for row, domain in enumerate(domains) if role in scores[domain]]
            x, y = zip(*dots, strict=True)
            axes.plot(x, y, "o", markersize=7, color=COLOUR_OF[role], label=role, alpha=0.9)
        axes.set_yticks(range(len(domains)), domains)
        axes.set_ylim(-0.7, len(domains) - 0.3)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("%")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        _legend(axes, len(roles))
    return Drawing(f"{metric} by domain", "Changes are relative to the first domain.", drawing.svg)


def draw_tracks(records: Records) -> Drawing | None:
    """Draw the number of tracks along the clip, and that of the animals that are seen."""
    truth = [record.animals for record in next(iter(records.values()), {}).values()]
    animals = [
        (frame, median(known))
        for frame, column in enumerate(zip_longest(*truth))
        if (known := [value for value in column if value is not None])
    ]
    svg = _along_clip(
        "tracks", records, lambda record: [float(count) for count in record.objects], "per frame", True, animals
    )
    dotted = " Dotted: visible animals in labelled frames." if animals else ""
    return None if svg is None else Drawing("Tracks", f"Number of tracks, median over clips.{dotted}", svg)


def draw_curves(curves: Curves) -> list[Drawing]:
    """Draw the training curves, one plot for each quantity."""
    drawings = []
    for number, (quantity, stages) in enumerate(list(curves.items())[:MAX_CURVES]):
        with plot(f"curve-{number}", 190, 320) as drawing:
            for stage, curve in stages.items():
                colour, mark = (TEACHER, None) if stage == "train" else (STUDENT, "o")
                drawing.axes.plot(curve.steps, curve.values, color=colour, marker=mark, markersize=4, label=stage)
            positive = [value for curve in stages.values() for value in curve.values]
            if min(positive) > 0 and max(positive) > 20 * min(positive):
                _use_decades(drawing.axes)
            drawing.axes.set_xlabel("step")
            _legend(drawing.axes, 2)
        drawings.append(Drawing(quantity, "", drawing.svg))
    return drawings


def _along_clip(
    name: str,
    records: Records,
    values_of: Callable[[ReplayRecord], Sequence[float]],
    label: str,
    from_zero: bool,
    truth: Sequence[tuple[int, float]] = (),
) -> str | None:
    series = {
        role: [values for record in clips.values() if (values := values_of(record))] for role, clips in records.items()
    }
    if not any(series.values()):
        return None
    with plot(name) as drawing:
        for role, clips in series.items():
            for values in clips if len(clips) > 1 else ():
                drawing.axes.plot(values, color=COLOUR_OF[role], linewidth=0.7, alpha=0.25)
            middle = [median([value for value in column if value is not None]) for column in zip_longest(*clips)]
            drawing.axes.plot(middle, color=COLOUR_OF[role], label=role)
        if truth:
            frames, animals = zip(*truth, strict=True)
            drawing.axes.plot(frames, animals, ":", color=INK, linewidth=1.6, label="animals")
        if from_zero:
            drawing.axes.set_ylim(bottom=0)
        drawing.axes.set_xlabel("frame of the clip")
        drawing.axes.set_ylabel(label)
        _legend(drawing.axes, len(series) + bool(truth))
    return drawing.svg


def _use_decades(axes: Axes) -> None:
    """Draw the values logarithmically, with plain numbers at the decades: matplotlib's own would be formulas."""
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(axes: Axes, entries: int, columns: int | None = None) -> None:
    if entries > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns or entries, borderaxespad=0)


def _end_of(name: str) -> str:
    """Return a clip's name as it fits beside an axis: of a long one the end, which tells clips of a folder apart."""
    return name if len(name) <= _MAX_NAME else f"…{name[1 - _MAX_NAME :]}"


def _gap(values: Sequence[tuple[str, float]]) -> float:
    numbers = [value for _, value in values]
    return max(numbers) - min(numbers)
