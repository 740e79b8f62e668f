"""The record on disk: one Parquet file a camera and day, rewritten whole when rows come, readable by everybody.

``RECORD/hours/<camera>/<YYYY_MM_DD>.parquet``. A day is a few hundred rows: writing it anew costs milliseconds, and a
kill leaves the old file or the new one, never half of one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.errors import DataError
from datamodules.files import atomic_path
from datamodules.locks import held
from pl_distill.reid.record_schema import ORIGIN, behaviours_of, record_schema
from pl_distill.reid.track_book import UNKNOWN

RECORD = "record"
"""Folder of the record beside the pool that names its animals."""

HOURS = "hours"
HOUR_S = 3600
Row = dict[str, Any]


class RecordError(DataError):
    """A record, or a table to join with it, is absent, damaged or contradicts itself."""


def day_file(record: Path, camera: str, day: date) -> Path:
    """Where the rows of a camera and day lie.

    Raises:
        RecordError: The camera's name would lead out of the folder.
    """
    if not camera or camera != Path(camera).name or camera.startswith("."):
        raise RecordError(f"camera '{camera}'", "is no name of a folder", "letters and digits", "Rename the camera.")
    return record / HOURS / camera / f"{day:%Y_%m_%d}.parquet"


def upsert(record: Path, rows: Sequence[Row], behaviours: Sequence[str]) -> None:
    """Write rows; one that the same session began under the same name, for the same hour and camera, is replaced.

    Raises:
        RecordError: A day's file is damaged, or names other behaviours.
    """
    schema = record_schema(behaviours)
    files: dict[Path, list[Row]] = {}
    for row in rows:
        files.setdefault(day_file(record, row["camera"], row["hour"].date()), []).append(row)
    for path, new in files.items():
        with alone_with(path):
            require_behaviours(path, behaviours)
            old = read_file(path).to_pylist() if path.exists() else []
            merged = {_key(row): row for row in [*old, *new]}
            ordered = sorted(merged.values(), key=lambda row: (row["hour"], row["animal"]))
            with atomic_path(path) as temporary:
                pq.write_table(pa.Table.from_pylist(ordered, schema), temporary, compression="zstd")


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Let nobody else rewrite a camera's days meanwhile, and take away what a killed writer left of this one."""
    with held(path.parent.with_name(f".{path.parent.name}.lock"), wait=True):
        for left in path.parent.glob(f".{path.name}.partial-*"):
            left.unlink(missing_ok=True)
        yield


def require_behaviours(path: Path, behaviours: Sequence[str]) -> None:
    """Refuse a day's file that names other behaviours.

    Raises:
        RecordError: It does, or it is damaged.
    """
    if path.exists() and (found := behaviours_of(read_file(path).schema)) != list(behaviours):
        fix = "Begin another pool, and with it another record, for another behaviour head, or wait for the next day."
        raise RecordError(path, f"names the behaviours {found}", str(list(behaviours)), fix)


def drop_rows(path: Path, prefix: str) -> None:
    """Take rows out of a day's file: those that no session began and whose animal had a name that begins so.

    Raises:
        RecordError: The file is damaged.
    """
    if not path.exists():
        return
    with alone_with(path):
        table = read_file(path)
        stay = [bool(row.get("began_in")) or not written_as(row).startswith(prefix) for row in table.to_pylist()]
        if not any(stay):
            path.unlink()
        elif not all(stay):
            with atomic_path(path) as temporary:
                pq.write_table(table.filter(pa.array(stay)), temporary, compression="zstd")


def holds_record(folder: Path) -> bool:
    """Whether a folder has hours of a record in it."""
    return any((folder / HOURS).glob("*/*.parquet"))


def read_hours(record: Path) -> pd.DataFrame:
    """Read a record.

    Returns:
        One row for each animal, hour, camera and name that the animal had then, the oldest first. Rows of whom has no
        name any more, and columns that are for the record itself, are left out.

    Raises:
        RecordError: There is none, a file of it is damaged, or nobody in it has a name.
    """
    files = sorted((record / HOURS).glob("*/*.parquet"))
    if not files:
        raise RecordError(record, "holds no record", f"{HOURS}/<camera>/<day>.parquet", "Make one: `record build`.")
    table = pa.concat_tables([read_file(path) for path in files], promote_options="default")
    frame: pd.DataFrame = table.drop_columns([name for name in ORIGIN if name in table.schema.names]).to_pandas()
    frame = frame[frame["animal"] != UNKNOWN]
    if frame.empty:
        raise RecordError(record, "has no row of an animal with a name", "one or more", "Name tracks: `reid split`.")
    return frame.sort_values(["hour", "camera", "animal"], ignore_index=True)


def rows_of_hour(record: Path, camera: str, hour: datetime) -> list[Row]:
    """Give the rows of a camera and hour that are there already: what a restarted writer goes on from."""
    path = day_file(record, camera, hour.date())
    if not path.exists():
        return []
    return [row for row in read_file(path).to_pylist() if row["hour"] == hour]


def written_as(row: Row) -> str:
    """Give the name that an animal had when its row was written; rows of older records have that one alone."""
    return str(row.get("tracked_as") or row["animal"])


def _key(row: Row) -> tuple[Any, ...]:
    """What tells a row apart whatever is merged, split or undone: a row that became another's is not its successor."""
    began_in = row.get("began_in") or ""  # of `record build`, and of older records, no session is known
    return written_as(row), row["hour"], row["camera"], began_in


def query(record: Path, sql: str) -> pd.DataFrame:
    """Ask a record in SQL; its rows are the table ``hours``, days and hours of day are UTC.

    Raises:
        RecordError: There is no record, or DuckDB does not understand the question.
    """
    hours = read_hours(record)
    with duckdb.connect(config={"enable_external_access": False, "threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")  # of the machine otherwise: hour::DATE would differ between two
        connection.register("hours", pa.Table.from_pandas(hours, preserve_index=False))
        try:
            return connection.sql(sql).to_df()
        except (duckdb.Error, AttributeError) as error:
            raise RecordError(
                "--sql", f"is not understood ({' '.join(str(error).split())[:200]})",
                f"a SELECT from hours ({', '.join(hours.columns)})", "Correct the query.",
            ) from error  # fmt: skip


def begin_of_hour(time_s: float) -> datetime:
    """Give the hour (UTC) that a time in seconds since 1970 lies in."""
    return datetime.fromtimestamp(time_s // HOUR_S * HOUR_S, UTC)


def read_file(path: Path) -> pa.Table:
    """Read the rows of a camera and day.

    Raises:
        RecordError: The file is damaged, or none of a record.
    """
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))  # at once: a writer may replace it at any moment
    except (pa.ArrowException, OSError) as error:
        raise RecordError(
            path, f"is truncated or damaged ({str(error).splitlines()[0][:120]})", "a Parquet file",
            "It was not changed: copy it back from a backup, or move it away; the other days are whole.",
        ) from error  # fmt: skip
    missing = set(record_schema(()).names) - {*table.schema.names, *ORIGIN}
    if missing:
        raise RecordError(
            path, f"lacks {', '.join(sorted(missing))}", "the columns of docs/animal-record.md", "Move it away."
        )
    return table
