"""How far scores fall where a model was not trained: clips of the same seeds and days, drawn in other domains.

Differences are paired by day, of which each clip has its own. Where domains differ in light, litter, coat or camera
alone, clips of equal number show the same animals on the same ways; another species, farm or size of the herd has only
seed and day in common, and its pairs are two herds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pl_distill.errors import ConfigError
from pl_distill.evaluation.caveats import MIN_CLIPS, MIN_SEEDS, count_of
from pl_distill.evaluation.results import Comparison, Results
from pl_distill.evaluation.statistics import PairedDifference, compare_pairs, show_difference, show_score
from pl_distill.evaluation.tables import ReportTable, write_both, write_report_table

SCHEMA = 1


@dataclass(frozen=True)
class DomainGap:
    """Student less teacher in one domain, in percentage points, paired by day.

    Args:
        domain: Name of the domain.
        mota: The difference; None without animals.
        idf1: The same of IDF1.
    """

    domain: str
    mota: PairedDifference | None
    idf1: PairedDifference | None


@dataclass(frozen=True)
class TransferRow:
    """One model in one domain; percentages, 0-100.

    Args:
        domain: Name of the domain.
        role: ``model``, ``teacher`` or ``student``; ``student vs teacher`` takes the teacher's tracks as truth.
        clips: How many.
        mota: Over all clips.
        idf1: Over all clips.
        mask_overlap: Mean overlap of animals' masks with those of tracks.
        id_switches: Over all clips.
        mota_change: To the first domain; None for the first.
        idf1_change: The same of IDF1.
    """

    domain: str
    role: str
    clips: int
    mota: float | None
    idf1: float | None
    mask_overlap: float | None
    id_switches: int
    mota_change: PairedDifference | None = None
    idf1_change: PairedDifference | None = None


def transfer_rows(results: Mapping[str, Results]) -> list[TransferRow]:
    """Make the table.

    Args:
        results: Evaluations of the same models by domain; the first is what the others are compared with.
    """
    home = next(iter(results.values()))
    rows = []
    for domain, found in results.items():
        for role, comparison in _comparisons(found).items():
            changes = {} if found is home else _differences(_comparisons(home)[role], comparison)
            rows.append(
                TransferRow(
                    domain,
                    role,
                    len(comparison.clips),
                    comparison.overall.mota,
                    comparison.overall.idf1,
                    comparison.mask_overlap,
                    comparison.overall.id_switches,
                    changes.get("mota"),
                    changes.get("idf1"),
                )
            )
    return rows


def domain_gaps(results: Mapping[str, Results]) -> list[DomainGap]:
    """Return how far the student stays behind its teacher in each domain; empty for one model alone."""
    gaps = []
    for domain, found in results.items():
        if "student" in found.models:
            gap = _differences(found.models["teacher"], found.models["student"])
            gaps.append(DomainGap(domain, gap.get("mota"), gap.get("idf1")))
    return gaps


def write_transfer(folder: Path, rows: Sequence[TransferRow], gaps: Sequence[DomainGap] = ()) -> tuple[Path, Path]:
    """Write ``transfer.json``, ``transfer.md`` and a table for the report into `folder`; return the first two paths."""
    text = f"{_HOW.format(first=rows[0].domain)} {verdict(rows)}"
    cells = [[str(cell) for cell in _cells(row)] for row in rows]
    cells += [
        [gap.domain, "student less teacher", show_difference(gap.mota), show_difference(gap.idf1), "", "", ""]
        for gap in gaps
    ]
    write_report_table(folder, "transfer", ReportTable("Transfer to other pens", text, list(COLUMNS), cells))
    content = {"schema": SCHEMA, "rows": [asdict(row) for row in rows], "gaps": [asdict(gap) for gap in gaps]}
    return write_both(folder, "transfer", content, format_transfer(rows, gaps))


def verdict(rows: Sequence[TransferRow]) -> str:
    """Say whether the changes are established; one run has one seed of the weights, however many clips."""
    clips = min(row.clips for row in rows)
    return (
        f"{count_of(clips, 'clip')} of each domain and one seed of the weights: no change is called established, "
        f"which takes at least {MIN_CLIPS} clips of different days and {MIN_SEEDS} seeds."
    )


def read_domains(folder: Path) -> list[str]:
    """Return the domains that ``transfer.json`` in `folder` is about, in its order.

    Raises:
        ConfigError: There is none.
    """
    path = folder / "transfer.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return list(dict.fromkeys(row["domain"] for row in rows))
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "Run `pl-distill transfer` first."
        raise ConfigError(path, f"cannot be read ({error})", "the scores of some domains", fix) from error


def domain_scores(folder: Path, metric: str) -> dict[str, dict[str, float]]:
    """Return domain -> role -> score out of ``transfer.json`` in `folder`; empty where there is none.

    Raises:
        ConfigError: It is damaged.
    """
    path = folder / "transfer.json"
    if not path.is_file():
        return {}
    try:
        scores: dict[str, dict[str, float]] = {}
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            scores.setdefault(row["domain"], {})
            if row[metric] is not None:
                scores[row["domain"]][row["role"]] = float(row[metric])
    except (ValueError, KeyError, TypeError) as error:
        fix = "Run `pl-distill transfer` again."
        raise ConfigError(path, f"cannot be read ({error})", "the scores of some domains", fix) from error
    return scores


def format_transfer(rows: Sequence[TransferRow], gaps: Sequence[DomainGap] = ()) -> str:
    """Return the tables as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(map(str, _cells(row)))} |" for row in rows]
    if gaps:
        lines += ["", "| domain | student less teacher, MOTA | IDF1 |", "|---|---|---|"]
        lines += [f"| {gap.domain} | {show_difference(gap.mota)} | {show_difference(gap.idf1)} |" for gap in gaps]
    lines += ["", _HOW.format(first=rows[0].domain), "", verdict(rows), ""]
    return "\n".join(lines)


COLUMNS = ("domain", "model", "MOTA %", "IDF1 %", "mask overlap %", "identity switches", "clips")
_HOW = (
    "In brackets the change against `{first}` and its 95 % interval, paired by day (bootstrap): clips of equal "
    "number are of one seed and day, and show the same herd unless species, farm or its size differ."
)


def _cells(row: TransferRow) -> tuple[str | int, ...]:
    mota, idf1 = show_score(row.mota, row.mota_change), show_score(row.idf1, row.idf1_change)
    return row.domain, row.role, mota, idf1, show_score(row.mask_overlap, None), row.id_switches, row.clips


def _comparisons(results: Results) -> dict[str, Comparison]:
    found: dict[str, Comparison] = dict(results.models)
    if results.student_vs_teacher is not None:
        found["student vs teacher"] = results.student_vs_teacher
    return found


def _differences(reference: Comparison, other: Comparison) -> dict[str, PairedDifference]:
    return {one.metric: one for one in compare_pairs([(reference, other)])}
