"""How far scores fall where a model was not trained: the same herds and days, drawn in other domains.

Clips of equal number in two domains show the same herd living the same day, so that differences are paired by clip.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datamodules.files import atomic_path, write_json
from pl_distill.errors import ConfigError
from pl_distill.evaluation.results import Comparison, Results
from pl_distill.evaluation.statistics import difference_of, idf1_counts, interval, mota_counts

SCHEMA = 1


@dataclass(frozen=True)
class Change:
    """A score less that of the first domain, in percentage points.

    Args:
        difference: Negative where the score falls.
        low: Lower end of the 95 % interval; None with a single clip.
        high: Upper end.
    """

    difference: float
    low: float | None
    high: float | None


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
    mota_change: Change | None = None
    idf1_change: Change | None = None


def transfer_rows(results: Mapping[str, Results]) -> list[TransferRow]:
    """Make the table.

    Args:
        results: Evaluations of the same models by domain; the first is what the others are compared with.
    """
    home = next(iter(results.values()))
    rows = []
    for domain, found in results.items():
        for role, comparison in _comparisons(found).items():
            reference = None if found is home else _comparisons(home)[role]
            rows.append(
                TransferRow(
                    domain,
                    role,
                    len(comparison.clips),
                    comparison.overall.mota,
                    comparison.overall.idf1,
                    comparison.mask_overlap,
                    comparison.overall.id_switches,
                    None if reference is None else _change(reference, comparison, idf1=False),
                    None if reference is None else _change(reference, comparison, idf1=True),
                )
            )
    return rows


def write_transfer(folder: Path, rows: Sequence[TransferRow]) -> tuple[Path, Path]:
    """Write ``transfer.json`` and ``transfer.md`` into `folder`, each whole or not at all, and return their paths."""
    json_path, text_path = folder / "transfer.json", folder / "transfer.md"
    write_json(json_path, {"schema": SCHEMA, "rows": [asdict(row) for row in rows]})
    with atomic_path(text_path) as temporary:
        temporary.write_text(format_transfer(rows), encoding="utf-8")
    return json_path, text_path


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


def format_transfer(rows: Sequence[TransferRow]) -> str:
    """Return the table as Markdown."""
    first = rows[0].domain
    lines = [
        "| domain | model | MOTA % | IDF1 % | mask overlap % | identity switches | clips |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mota, idf1 = _show(row.mota, row.mota_change), _show(row.idf1, row.idf1_change)
        cells = (row.domain, row.role, mota, idf1, _show(row.mask_overlap, None), row.id_switches, row.clips)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        f"In brackets the change against `{first}` and its 95 % interval, paired by clip (bootstrap): clips of equal "
        "number show the same herd and day.",
        "",
    ]
    return "\n".join(lines)


def _comparisons(results: Results) -> dict[str, Comparison]:
    found: dict[str, Comparison] = dict(results.models)
    if results.student_vs_teacher is not None:
        found["student vs teacher"] = results.student_vs_teacher
    return found


def _change(reference: Comparison, other: Comparison, *, idf1: bool) -> Change | None:
    counts_of = idf1_counts if idf1 else mota_counts
    names = [name for name in reference.clips if name in other.clips]
    table = np.array(
        [[[counts_of(side.clips[name].scores) for side in (reference, other)] for name in names]], np.float64
    )  # (1, clips, 2, 2): one seed; the first domain, then the other; part and whole
    if not len(names) or not (table[..., 1].sum(axis=(0, 1)) > 0).all():
        return None
    low, high = interval(table) if len(names) > 1 else (None, None)
    return Change(float(difference_of(table)), low, high)


def _show(value: float | None, change: Change | None) -> str:
    if value is None:
        return "-"
    if change is None:
        return f"{value:.1f}"
    between = "" if change.low is None or change.high is None else f" [{change.low:+.1f}, {change.high:+.1f}]"
    return f"{value:.1f} ({change.difference:+.1f}{between})"
