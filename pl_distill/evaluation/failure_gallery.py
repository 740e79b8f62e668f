"""Errors of the trackers as the report shows them: totals by situation, and the most costly ones in pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pl_distill.evaluation.failure_reasons import REASONS
from pl_distill.evaluation.failures import KINDS, Failure, Total, read_failures, total_failures
from pl_distill.evaluation.results import ModelResult, Results

WORST = 10


@dataclass(frozen=True)
class ReasonRow:
    """One situation: how often each model went wrong in it.

    Args:
        reason: One of `REASONS`.
        explanation: Its rule.
        cells: Role -> kind -> events and the boxes that they cost.
    """

    reason: str
    explanation: str
    cells: dict[str, dict[str, Total]]


@dataclass(frozen=True)
class Gallery:
    """All errors of an evaluation.

    Args:
        rows: Situations that occurred, in the order of `REASONS`.
        totals: Role -> kind -> total.
        worst: The most costly errors of the student, or of the only model.
        role: Whose they are.
        all: Role -> every error, the most costly first.
    """

    rows: list[ReasonRow]
    totals: dict[str, dict[str, Total]]
    worst: list[Failure]
    role: str
    all: dict[str, list[Failure]]

    @property
    def kinds(self) -> dict[str, str]:
        """Every kind with what it means."""
        return KINDS


def make_gallery(folder: Path, results: Results) -> Gallery | None:
    """Read the errors of all models; None where none are stored, as in older results.

    Args:
        folder: Of the results.
        results: What was evaluated.

    Raises:
        ResultsError: A file of errors is damaged.
    """
    found = {role: read_failures(folder / path) for role, path in _stored(folder, results.models)}
    if not found:
        return None
    by_role = {role: total_failures(failures) for role, failures in found.items()}
    rows = [
        ReasonRow(
            reason,
            text,
            {
                role: {kind: totals.get(kind, {}).get(reason, Total()) for kind in KINDS}
                for role, totals in by_role.items()
            },
        )
        for reason, text in REASONS.items()
        if any(reason in totals.get(kind, {}) for totals in by_role.values() for kind in KINDS)
    ]
    sums = {
        role: {kind: sum(totals.get(kind, {}).values(), Total()) for kind in KINDS} for role, totals in by_role.items()
    }
    judged = list(found)[-1]
    return Gallery(rows, sums, found[judged][:WORST], judged, found)


def describe(failure: Failure) -> str:
    """Say in a line what happened, to whom, when and where."""
    if failure.kind == "switch":
        what = f"animal {failure.animal}: identity {failure.tracks[0]} becomes {failure.tracks[1]}"
        when = f"at {failure.end_s:.1f} s"
    else:
        subject = f"animal {failure.animal} has no track" if failure.kind == "miss" else f"track {failure.tracks[0]}"
        what = subject if failure.kind == "miss" else f"{subject} follows no animal"
        same = failure.first_frame == failure.last_frame
        when = f"at {failure.start_s:.1f} s" if same else f"from {failure.start_s:.1f} to {failure.end_s:.1f} s"
    return f"{what}, {when}, {failure.place}"


def _stored(folder: Path, models: dict[str, ModelResult]) -> Iterator[tuple[str, str]]:
    for role, model in models.items():
        if model.failures is not None and (folder / model.failures).is_file():
            yield role, model.failures
