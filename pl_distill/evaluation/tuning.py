"""What a SAM 3's thresholds, and the switches of its streaming, do to the scores on labelled clips.

Each combination of thresholds is a model of its own, which shares the weights of the original by links.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from datamodules.files import write_json
from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.evaluation.caveats import MIN_CLIPS, MIN_SEEDS, count_of
from pl_distill.evaluation.results import Results
from pl_distill.evaluation.statistics import PairedDifference, compare_pairs, show_score
from pl_distill.evaluation.tables import ReportTable, write_arms
from pl_distill.streaming import PruningPolicy

SCHEMA = 1
CONFIG = "config.json"
AS_IT_IS = "as-it-is"
"""The arm that changes nothing; the others are compared with it."""

WITHOUT = "without-"
"""How the name of an arm begins whose policy lacks something."""

SWITCHES = (
    "retirement", "appearance", "suppress_duplicates", "fill_holes", "one_to_one", "protect_memories", "full_window",
    "fuse_boxes", "skip_blank",
)  # fmt: skip
"""What a policy mends and transformers does not."""

COLUMNS = ("arm", "MOTA %", "IDF1 %", "mask overlap %", "misses", "false positives", "switches", "frames/s")

Change = dict[str, float | int]


@dataclass(frozen=True)
class TuningRow:
    """One combination of thresholds, or the model as it is without a switch of the policy.

    Args:
        arm: Its folder.
        changes: Name in config.json -> value; empty where no threshold differs.
        mota: Percent, over all clips.
        idf1: Percent.
        mask_overlap: Percent.
        misses: Over all clips.
        false_positives: Over all clips.
        id_switches: Over all clips.
        frames_per_second: Of the tracker.
        differences: To the model as it is, in MOTA and IDF1; empty for itself.
    """

    arm: str
    changes: Change
    mota: float | None
    idf1: float | None
    mask_overlap: float | None
    misses: int
    false_positives: int
    id_switches: int
    frames_per_second: float | None
    differences: list[PairedDifference]


def combinations(config: Mapping[str, object], grid: Mapping[str, Sequence[float]]) -> dict[str, Change]:
    """Return every combination by name, the model as it is first.

    Args:
        config: Of the model, as config.json says it.
        grid: Name of a number in it -> values to try.

    Raises:
        ConfigError: A name is no number of the configuration, or has no values.
    """
    numbers = {name for name, value in config.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    for name, values in grid.items():
        if name not in numbers:
            raise ConfigError("--grid", f"names {name!r}", f"one of {', '.join(sorted(numbers))}", "Correct the name.")
        if not values:
            raise ConfigError("--grid", f"has no values for {name}", "a list of numbers", "Name some, or leave it out.")
    arms: dict[str, Change] = {AS_IT_IS: {}}
    for values in product(*grid.values()):
        # 1.0 and 1 are one value; whole numbers stay whole, as transformers checks them.
        change = {name: _as(config[name], value) for name, value in zip(grid, values, strict=True)}
        if any(config[name] != value for name, value in change.items()):
            arms["_".join(f"{name}={_show(value)}" for name, value in change.items())] = change
    return arms


def _as(present: object, value: float) -> float | int:
    return int(value) if isinstance(present, int) and float(value).is_integer() else float(value)


def _show(value: float) -> str:
    """Return a number as short as it can be told from all others: arms whose values share six digits are two."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def without_switches(policy: PruningPolicy) -> dict[str, PruningPolicy]:
    """Return arms that lack one of the policy's switches each, and one that lacks all of them.

    The rest of the policy stays in every arm; by default, nothing of it changes what transformers alone gives.
    """
    off: dict[str, Any] = {name: None if name in ("retirement", "appearance") else False for name in SWITCHES}
    arms = {f"{WITHOUT}{name}": replace(policy, **{name: off[name]}) for name in SWITCHES if getattr(policy, name)}
    return {**arms, f"{WITHOUT}any": replace(policy, **off)}


def write_variant(source: Path, folder: Path, change: Change) -> Path:
    """Make `folder` a model that differs from `source` in its configuration only, and return it.

    Raises:
        CheckpointError: `folder` holds another configuration, or the weights of another model.
    """
    config = {**json.loads((source / CONFIG).read_text(encoding="utf-8")), **change}
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        link = folder / file.name
        if file.name != CONFIG and not link.is_symlink():
            link.symlink_to(file.resolve())
        elif file.name != CONFIG and link.resolve() != file.resolve():
            found = f"leads to {link.resolve()}"
            raise CheckpointError(link, found, f"{file.resolve()} of this model", "Name another --out.")
    path = folder / CONFIG
    if not path.exists():
        write_json(path, config)
    elif json.loads(path.read_text(encoding="utf-8")) != config:
        raise CheckpointError(path, "is of another model or run", "this model's", "Name another --out.")
    return folder


def tuning_rows(arms: Mapping[str, Change], results: Mapping[str, Results]) -> list[TuningRow]:
    """Make the table, the best first: by the sum of MOTA and IDF1.

    Args:
        arms: Name -> the thresholds that it changes; those that change none may be left out.
        results: Name -> its scores; `AS_IT_IS` is among them.
    """
    rows = []
    reference = results[AS_IT_IS].models["model"]
    for arm, found in results.items():
        model = found.models["model"]
        rows.append(
            TuningRow(
                arm=arm,
                changes=dict(arms.get(arm, {})),
                mota=model.overall.mota,
                idf1=model.overall.idf1,
                mask_overlap=model.mask_overlap,
                misses=model.overall.misses,
                false_positives=model.overall.false_positives,
                id_switches=model.overall.id_switches,
                frames_per_second=model.frames_per_second,
                differences=[] if arm == AS_IT_IS else compare_pairs([(reference, model)]),
            )
        )
    return sorted(rows, key=lambda row: -((row.mota or 0.0) + (row.idf1 or 0.0)))


def write_tuning(folder: Path, rows: Sequence[TuningRow], clips: int) -> tuple[Path, Path]:
    """Write ``tune.json``, ``tune.md`` and the table for the report into `folder`; return the first two paths."""
    content = {"schema": SCHEMA, "clips": clips, "rows": [asdict(row) for row in rows]}
    return write_arms(folder, "tune", tuning_table(rows, clips), content)


def tuning_table(rows: Sequence[TuningRow], clips: int) -> ReportTable:
    """Return the rows as they are shown.

    Args:
        rows: The arms.
        clips: How many clips each has streamed.
    """
    text = (
        f"Sorted by MOTA + IDF1 over {count_of(clips, 'clip')}; in brackets the difference to the model as it is and "
        "its 95 % interval, paired by day (bootstrap). The best of many is better here than it will be elsewhere: "
        f"score it on other clips. One seed of the weights: nothing is called established, which takes "
        f"{MIN_CLIPS} clips of different days and {MIN_SEEDS} seeds."
    )
    return ReportTable("Thresholds and switches", text, list(COLUMNS), [_cells(row) for row in rows])


def _cells(row: TuningRow) -> list[str]:
    by_metric = {item.metric: item for item in row.differences}
    return [
        ", ".join(f"{name} {_show(value)}" for name, value in row.changes.items()) or row.arm.replace("-", " "),
        show_score(row.mota, by_metric.get("mota")),
        show_score(row.idf1, by_metric.get("idf1")),
        show_score(row.mask_overlap, None),
        str(row.misses),
        str(row.false_positives),
        str(row.id_switches),
        "-" if row.frames_per_second is None else f"{row.frames_per_second:.2f}",
    ]
