"""Scores and bytes against the pruning window: how much of the past a tracker needs.

Each arm streams the same clips with another policy. Scores are compared with those of the exact mode, paired by day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

from pl_distill.evaluation.caveats import MIN_CLIPS, MIN_SEEDS, count_of
from pl_distill.evaluation.clip_files import read_record
from pl_distill.evaluation.results import Results
from pl_distill.evaluation.statistics import PairedDifference, compare_pairs, show_score
from pl_distill.evaluation.tables import ReportTable, write_arms
from pl_distill.streaming import PruningPolicy

SCHEMA = 1
REFERENCE = "exact"
"""The arm that the others are compared with: it changes nothing."""

COLUMNS = (
    "window", "model", "MOTA %", "IDF1 %", "mask overlap %", "switches", "kept MiB", "growth B/frame", "frames/s",
)  # fmt: skip


@dataclass(frozen=True)
class WindowRow:
    """One model with one window.

    Args:
        window: Name of the arm: ``none``, ``exact``, ``bounded``, or the number of past frames.
        role: ``model``, ``teacher`` or ``student``.
        mota: Percent, over all clips.
        idf1: Percent.
        mask_overlap: Percent.
        id_switches: Over all clips.
        session_bytes: The most that is kept from frame to frame.
        growth_bytes: How many bytes a frame adds in the second half of a clip, mean over clips.
        frames_per_second: Of the tracker.
        differences: To the exact mode, in MOTA and IDF1; empty for itself.
    """

    window: str
    role: str
    mota: float | None
    idf1: float | None
    mask_overlap: float | None
    id_switches: int
    session_bytes: int
    growth_bytes: float
    frames_per_second: float | None
    differences: list[PairedDifference]


def window_policies(base: PruningPolicy, windows: Sequence[int], *, unpruned: bool) -> dict[str, PruningPolicy]:
    """Return the arms by name: exact, bounded, each window in the bounded mode from long to short; none where asked."""
    arms = {"none": replace(base, mode="none", window_frames=None)} if unpruned else {}
    arms |= {mode: replace(base, mode=mode, window_frames=None) for mode in (REFERENCE, "bounded")}  # type: ignore[arg-type]
    frames = sorted(set(windows), reverse=True)
    return arms | {str(number): replace(base, mode="bounded", window_frames=number) for number in frames}


def window_rows(folders: Mapping[str, Path], results: Mapping[str, Results]) -> list[WindowRow]:
    """Make the table.

    Args:
        folders: Arm -> folder of its evaluation.
        results: Arm -> its results; `REFERENCE` is among them.
    """
    rows = []
    for arm, found in results.items():
        for role, model in found.models.items():
            differences = [] if arm == REFERENCE else compare_pairs([(results[REFERENCE].models[role], model)])
            records = [
                read_record(folders[arm] / clip.replay.record).session_bytes
                for clip in model.clips.values()
                if clip.replay is not None
            ]
            rows.append(
                WindowRow(
                    window=arm,
                    role=role,
                    mota=model.overall.mota,
                    idf1=model.overall.idf1,
                    mask_overlap=model.mask_overlap,
                    id_switches=model.overall.id_switches,
                    session_bytes=max(max(kept) for kept in records),
                    growth_bytes=round(mean(growth(kept) for kept in records), 1),
                    frames_per_second=model.frames_per_second,
                    differences=differences,
                )
            )
    return rows


def growth(kept: Sequence[int]) -> float:
    """Return the bytes that a frame adds in the second half of a stream: the change of the maximum over quarters.

    Animals come and go, so that a difference of two frames would say more about them than about pruning.
    """
    quarter = len(kept) // 4
    if quarter == 0:
        return 0.0
    return (max(kept[-quarter:]) - max(kept[-2 * quarter : -quarter])) / quarter


def write_window(folder: Path, rows: Sequence[WindowRow], clips: int) -> tuple[Path, Path]:
    """Write ``window.json``, ``window.md`` and the table for the report into `folder`; return the first two paths."""
    content = {"schema": SCHEMA, "clips": clips, "rows": [asdict(row) for row in rows]}
    return write_arms(folder, "window", window_table(rows, clips), content)


def window_table(rows: Sequence[WindowRow], clips: int) -> ReportTable:
    """Return the rows as they are shown.

    Args:
        rows: The arms.
        clips: How many clips each has streamed.
    """
    text = (
        "A number is how many past frames of each animal are kept, in the bounded mode; `bounded` keeps what the model "
        "reads of them, `exact` every conditioning pointer, too, `none` everything. In brackets the difference to "
        f"`exact` and its 95 % interval, paired by day (bootstrap). {count_of(clips, 'clip')} and one seed of the "
        f"weights: no difference is called established, which takes at least {MIN_CLIPS} clips of different days and "
        f"{MIN_SEEDS} seeds."
    )
    return ReportTable("The pruning window", text, list(COLUMNS), [_cells(row) for row in rows])


def _cells(row: WindowRow) -> list[str]:
    by_metric = {item.metric: item for item in row.differences}
    return [
        row.window,
        row.role,
        show_score(row.mota, by_metric.get("mota")),
        show_score(row.idf1, by_metric.get("idf1")),
        show_score(row.mask_overlap, None),
        str(row.id_switches),
        f"{row.session_bytes / 2**20:.2f}",
        f"{row.growth_bytes:,.0f}",
        "-" if row.frames_per_second is None else f"{row.frames_per_second:.2f}",
    ]
