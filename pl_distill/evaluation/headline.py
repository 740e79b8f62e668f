"""The table that matters, as rows: printed by the console, drawn by the report, so that both say the same."""

from collections.abc import Sequence
from dataclasses import dataclass

from pl_distill.evaluation.results import ModelResult, Results
from pl_distill.evaluation.statistics import PairedDifference, compare_pairs
from pl_distill.evaluation.trackers import BASELINES

GIB = 2**30


@dataclass(frozen=True)
class Row:
    """One quantity of all models.

    Args:
        label: With its unit.
        values: Shown as they are, by column of `columns`.
        better: Whether the student is better (True), worse (False) or neither (None).
        explanation: What the quantity means, in one sentence.
    """

    label: str
    values: tuple[str, ...]
    better: bool | None
    explanation: str


@dataclass(frozen=True)
class _Quantity:
    label: str
    name: str
    digits: int
    high_is_good: bool
    explanation: str


_SCORES = (
    _Quantity("MOTA %", "mota", 2, True, "100 less misses, false positives and switches per animal and frame."),
    _Quantity("IDF1 %", "idf1", 2, True, "Share of boxes that carry the right identity over the whole clip."),
    _Quantity("HOTA %", "hota", 2, True, "Finding and keeping apart in one number, over all overlap thresholds."),
    _Quantity("ID switches", "id_switches", 0, False, "How often an animal goes on under another identity."),
    _Quantity("misses", "misses", 0, False, "Animals without a track, counted per frame."),
    _Quantity("false positives", "false_positives", 0, False, "Tracks without an animal, counted per frame."),
    _Quantity("fragmentations", "fragmentations", 0, False, "How often an animal is lost and found again."),
)
_BEHAVIOUR_OF_ALL = (
    (
        "behaviour right of all %",
        "right_of_all",
        "Part of all animals whose behaviour is named right; one without a track is wrong.",
    ),
    ("behaviour, animals covered %", "covered", "Part of these animals that a track covers by half."),
)
_BEHAVIOUR_OF_COVERED = (
    ("behaviour top-1 %", "top1", "Part of the animals that its own tracks cover whose behaviour is named right."),
    ("behaviour macro-F1 %", "macro_f1", "Mean F1 over the behaviours, of the same animals."),
)
_OF_OTHERS = " A tracker that loses the hard ones scores better here: two are not compared."
_NONE = "-"


def columns(results: Results) -> tuple[str, ...]:
    """Return the headings: one model alone, or teacher, student, difference, and the student against the teacher."""
    if "student" not in results.models:
        return tuple(results.models)
    return ("teacher", "student", "difference", "student vs teacher")


def headline(results: Results) -> list[Row]:
    """Return the rows: scores, then speed, memory and size."""
    rows = [_score_row(results, quantity) for quantity in _SCORES]
    models = list(results.models.values())
    rows[3:3] = _mask_rows(results)
    named = [model.behaviour for model in models]
    if any(behaviour is not None for behaviour in named):
        for label, name, text in _BEHAVIOUR_OF_ALL:
            values = [None if one is None else getattr(one, name) for one in named]
            rows.append(_plain_row(label, values, "{:.2f}", True, text))
        for label, name, text in _BEHAVIOUR_OF_COVERED:
            values = [None if one is None else getattr(one.tracks, name) for one in named]
            shown = tuple(_show(value, "{:.2f}") for value in values)
            alone = len(values) == 1
            rows.append(Row(label, shown if alone else (*shown, _NONE, ""), None, text if alone else text + _OF_OTHERS))
    rows.append(
        _plain_row(
            "frames per second",
            [model.frames_per_second for model in models],
            "{:.2f}",
            True,
            "Frames over the time in the tracker; decoding and drawing are not in it.",
        )
    )
    kept = [None if model.session_bytes is None else model.session_bytes / 2**20 for model in models]
    if any(value is not None for value in kept):
        rows.append(
            _plain_row(
                "kept between frames MiB", kept, "{:.2f}", False, "Largest session: what streaming must remember."
            )
        )
    vram = [None if model.peak_vram_bytes is None else model.peak_vram_bytes / GIB for model in models]
    if any(value is not None for value in vram):
        rows.append(_plain_row("peak VRAM GiB", vram, "{:.2f}", False, "Most memory that was allocated on the GPU."))
    rss = [model.peak_rss_bytes / GIB for model in models]
    rows.append(
        _plain_row("peak RSS GiB", rss, "{:.2f}", False, "Largest resident set, with Python and its libraries.")
    )
    sizes = (
        ("trunk parameters M", "trunk_parameters", "The teacher's trunk, or the student in its place."),
        ("neck parameters M", "neck_parameters", "The two necks behind it."),
        ("all parameters M", "parameters", "Everything that runs; the text encoder does not."),
    )
    for label, name, explanation in sizes:
        counts = [getattr(model.model, name) / 1e6 for model in models]
        rows.append(_plain_row(label, counts, "{:.3f}", False, explanation))
    return rows


@dataclass(frozen=True)
class BaselineRow:
    """One tracker on one network, beside ours.

    Args:
        role: The network: ``model``, ``teacher`` or ``student``.
        label: The tracker.
        is_baseline: Whether it is none of ours.
        values: Scores as they are shown, by `BASELINE_COLUMNS`.
        difference: Of MOTA, ours less the baseline, with its interval; None for ours.
    """

    role: str
    label: str
    is_baseline: bool
    values: tuple[str, ...]
    difference: PairedDifference | None


BASELINE_COLUMNS = ("MOTA %", "IDF1 %", "HOTA %", "switches", "misses", "false", "frames/s", "kept MiB")


def baseline_rows(results: Results) -> list[BaselineRow]:
    """Return our tracker and the baselines of each network; empty where none was run."""
    rows: list[BaselineRow] = []
    for role, ours in results.models.items() if results.baselines else ():
        rows.append(BaselineRow(role, "ours", False, _baseline_values(ours), None))
        for name, text in BASELINES.items():
            other = results.baselines.get(f"{role}-{name}")
            if other is not None:
                difference = next((one for one in compare_pairs([(other, ours)]) if one.metric == "mota"), None)
                rows.append(BaselineRow(role, text.label, True, _baseline_values(other), difference))
    return rows


def describe_difference(item: PairedDifference | None) -> str:
    """Return a difference with its interval and whether it is established, in one line."""
    if item is None:
        return ""
    between = "" if item.low is None or item.high is None else f" [{item.low:+.2f}, {item.high:+.2f}]"
    return f"{item.difference:+.2f}{between} {'' if item.established else 'not '}established"


def format_baselines(results: Results) -> str:
    """Return the table of baselines as plain text; the last column is ours less the baseline."""
    head = ("", "", *BASELINE_COLUMNS, "MOTA of ours less this")
    lines = [(row.role, row.label, *row.values, describe_difference(row.difference)) for row in baseline_rows(results)]
    return plain_table([head, *lines], left=2)


def _baseline_values(model: ModelResult) -> tuple[str, ...]:
    scores = model.overall
    return (
        *(_show(value, "{:.2f}") for value in (scores.mota, scores.idf1, scores.hota)),
        *(str(count) for count in (scores.id_switches, scores.misses, scores.false_positives)),
        _show(model.frames_per_second, "{:.2f}"),
        _show(None if model.session_bytes is None else model.session_bytes / 2**20, "{:.1f}"),
    )


def format_table(results: Results) -> str:
    """Return the table as plain text."""
    return plain_table(
        [("", *columns(results)), *((row.label, *row.values) for row in headline(results))],
        left=1,
    )


def plain_table(table: Sequence[Sequence[str]], left: int) -> str:
    """Line up cells, the first `left` columns to the left, with a rule below the head."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width) for column, (cell, width) in enumerate(cells)
        )
        for cells in (list(zip(line, widths, strict=True)) for line in table)
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *(line.rstrip() for line in lines[1:])])


def _mask_rows(results: Results) -> list[Row]:
    every, tracked = (
        "Mean overlap of animals' masks with those of tracks; 0 where there is none.",
        "The same over the animals alone whose overlap is at least 0.5: how good a mask is where there is one.",
    )
    return [
        _mask_row(results, "mask_overlap", "mask overlap %", every),
        _mask_row(results, "matched_mask_overlap", "mask overlap, matched %", tracked),
    ]


def _mask_row(results: Results, name: str, label: str, text: str) -> Row:
    values: list[float | None] = [getattr(model, name) for model in results.models.values()]
    row = _plain_row(label, values, "{:.2f}", True, text)
    if len(values) == 1:
        return row
    mutual = None if results.student_vs_teacher is None else getattr(results.student_vs_teacher, name)
    return Row(row.label, (*row.values[:3], _show(mutual, "{:.2f}")), row.better, row.explanation)


def _score_row(results: Results, quantity: _Quantity) -> Row:
    values: list[float | None] = [getattr(model.overall, quantity.name) for model in results.models.values()]
    form = f"{{:.{quantity.digits}f}}"
    row = _plain_row(quantity.label, values, form, quantity.high_is_good, quantity.explanation)
    if len(values) == 1:
        return row
    comparison = results.student_vs_teacher
    mutual = None if comparison is None else getattr(comparison.overall, quantity.name)
    return Row(row.label, (*row.values[:3], _show(mutual, form)), row.better, row.explanation)


def _plain_row(label: str, values: list[float | None] | list[float], form: str, high_is_good: bool, text: str) -> Row:
    shown = tuple(_show(value, form) for value in values)
    if len(values) == 1:
        return Row(label, shown, None, text)
    teacher, student = values
    if teacher is None or student is None:
        return Row(label, (*shown, _NONE, ""), None, text)
    difference = student - teacher
    signed = form.replace("{:", "{:+")
    better = None if _show(teacher, form) == _show(student, form) else (difference > 0) == high_is_good
    return Row(label, (*shown, signed.format(difference), ""), better, text)


def _show(value: float | None, form: str) -> str:
    return _NONE if value is None else form.format(value)
