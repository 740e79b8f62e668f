"""Students of several seeds: whether their evaluations may be compared, and each of them in a table."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from pl_distill.errors import ConfigError
from pl_distill.evaluation.results import Results
from pl_distill.evaluation.tables import ReportTable


def check_seeds(runs: Sequence[Results], places: Sequence[Path]) -> None:
    """Refuse runs that are not the same clips and teacher, judged alike, with a student of another seed each.

    Args:
        runs: Evaluations of a teacher and a student.
        places: Where each was read, for the message.

    Raises:
        ConfigError: They are not, or one is there twice: three times the same student would count as three seeds.
    """
    first = runs[0]
    students: dict[str, Path] = {}
    for run, place in zip(runs, places, strict=True):
        if "student" not in first.models or "student" not in run.models:
            raise ConfigError("seeds", f"{place} compares no student", "teacher and student in each", "Leave it out.")
        for what, seen in _judged(first).items():
            if what == "pictures" and "" in (run.data_sha256, first.data_sha256):
                continue  # results of an older version do not tell
            if _judged(run)[what] != seen:
                raise ConfigError("seeds", f"{place} is of other {what}", f"those of {places[0]}", "Leave it out.")
        twin = students.setdefault(run.models["student"].model.sha256, place)
        if twin is not place:
            raise ConfigError(
                "seeds", f"{place} has the very student of {twin}", "one of another seed", "Leave it out."
            )


def seed_table(runs: Sequence[Results], places: Sequence[Path]) -> ReportTable:
    """Return MOTA and IDF1 of teacher and student for each seed, and below them the means.

    Args:
        runs: Evaluations that `check_seeds` has passed.
        places: Where each was read.
    """
    columns = ["seed", "MOTA % teacher", "student", "difference", "IDF1 % teacher", "student", "difference"]
    numbers = [_scores(run) for run in runs]
    means = [None if None in column else fmean(column) for column in zip(*numbers, strict=True)]
    names = [*map(str, places), "mean"]
    rows = [[name, *_cells(found)] for name, found in zip(names, [*numbers, means], strict=True)]
    text = "Against truth, pooled over all clips. What is shown of one seed alone is of the first."
    return ReportTable("Seed by seed", text, columns, rows)


def _scores(run: Results) -> list[float | None]:
    """Return teacher, student and difference of MOTA, then of IDF1."""
    found: list[float | None] = []
    for metric in ("mota", "idf1"):
        teacher, student = (getattr(run.models[role].overall, metric) for role in ("teacher", "student"))
        found += [teacher, student, None if teacher is None or student is None else student - teacher]
    return found


def _cells(numbers: Sequence[float | None]) -> list[str]:
    """Return what `_scores` returns as it is shown."""
    forms = ("{:.2f}", "{:.2f}", "{:+.2f}") * 2
    return ["-" if number is None else form.format(number) for number, form in zip(numbers, forms, strict=True)]


def _judged(run: Results) -> dict[str, object]:
    """Return what students of several seeds must have in common, by name; folders and devices may differ."""
    truth = {
        name: (clip.scores.scored_frames, clip.scores.truth_boxes) for name, clip in run.models["student"].clips.items()
    }
    teacher = run.models["teacher"].model.sha256 if "teacher" in run.models else None
    student = run.models["student"].model
    return {
        "clips": truth,
        "pictures": (run.data_sha256, run.split_sha256),  # two domains of the drawn pen have clips of the same names
        "teachers": teacher,
        "kinds of student": (student.kind, student.parameters, student.image_size),
        "settings": replace(run.settings, data="", device=""),
    }
