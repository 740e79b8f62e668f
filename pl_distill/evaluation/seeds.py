"""Whether evaluations may be compared as students of several seeds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pl_distill.errors import ConfigError
from pl_distill.evaluation.results import Results


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
            if _judged(run)[what] != seen:
                raise ConfigError("seeds", f"{place} is of other {what}", f"those of {places[0]}", "Leave it out.")
        twin = students.setdefault(run.models["student"].model.sha256, place)
        if twin is not place:
            raise ConfigError(
                "seeds", f"{place} has the very student of {twin}", "one of another seed", "Leave it out."
            )


def _judged(run: Results) -> dict[str, object]:
    """Return what students of several seeds must have in common, by name; folders and devices may differ."""
    truth = {
        name: (clip.scores.scored_frames, clip.scores.truth_boxes) for name, clip in run.models["student"].clips.items()
    }
    teacher = run.models["teacher"].model.sha256 if "teacher" in run.models else None
    return {"clips": truth, "teachers": teacher, "settings": replace(run.settings, data="", device="")}
