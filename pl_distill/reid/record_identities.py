"""The record follows the pool: after a merge, a split or an undoing, rows have the names that their tracks have now.

A row remembers the tracks that it rests on, everybody who was nearest, and the names under which it was written. Whose
it is, and who was nearest, follows from these and the pool alone, so that it can be asked at any time and again: rows
are not summed up, and nothing has to be taken back.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.files import atomic_path
from pl_distill.reid.hour_tally import by_names_of_now, nearest_of, owners_of, seconds_beside
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.record_files import HOURS, RecordError, alone_with, read_file
from pl_distill.reid.track_book import UNKNOWN

log = logging.getLogger(__name__)

_NEEDED = ("tracked_as", "nearest_as", "tracks")
"""Columns that tell whose a row is; the oldest records have none of them."""


def follow_identities(record: Path, pool: EmbeddingPool) -> int:
    """Give every row of a record the name that its animal has in the pool.

    Each day's file is rewritten whole or not at all; what a kill leaves undone, the next call does. A damaged file is
    left as it is, with a warning. Rows without tracks, or of tracks that the pool does not hold, keep their name.

    Args:
        record: Folder of the record; need not exist.
        pool: That the record lies beside, open: nobody else writes to it.

    Returns:
        How many files changed.
    """
    changed = 0
    for path in sorted((record / HOURS).glob("*/*.parquet")):
        with alone_with(path):
            changed += _follow(path, pool)
    return changed


def _follow(path: Path, pool: EmbeddingPool) -> bool:
    """Rewrite one day's file where names have changed, and say whether they have."""
    try:
        table = read_file(path)
    except RecordError as error:
        log.warning("its rows keep their names: %s", error)
        return False
    renamed = _renamed(table, pool)
    if renamed.equals(table):
        return False
    with atomic_path(path) as temporary:
        pq.write_table(renamed, temporary, compression="zstd")
    return True


def _renamed(table: pa.Table, pool: EmbeddingPool) -> pa.Table:
    """Name the animals of a camera's day as the pool does, and those that were nearest to them."""
    if not set(_NEEDED) <= set(table.schema.names):
        return table
    optional = {"nearest_each"} & set(table.schema.names)
    rows = table.select(["animal", "hour", "camera", "seen_s", "nearest", "nearest_s", *_NEEDED, *optional]).to_pylist()
    found = [_owner(pool, row["camera"], row["tracks"] or ()) for row in rows]
    animals = [row["animal"] if owner is None else owner for row, owner in zip(rows, found, strict=True)]
    pairs = list(zip(rows, animals, strict=True))
    hours = {row["hour"] for row in rows}
    owners = {hour: owners_of(pair for pair in pairs if pair[0]["hour"] == hour) for hour in hours}
    nearest = [nearest_of(by_names_of_now(seconds_beside(row), owners[row["hour"]]), animal) for row, animal in pairs]
    names, seconds = [one for one, _ in nearest], [lasted for _, lasted in nearest]
    for column, values in (("animal", animals), ("nearest", names), ("nearest_s", seconds)):
        place = table.schema.get_field_index(column)
        kind = table.schema.field(place)
        table = table.set_column(place, kind, pa.array(values, kind.type))
    return table


def _owner(pool: EmbeddingPool, camera: str, tracks: Sequence[Mapping[str, Any]]) -> str | None:
    """Name the animal whose tracks were seen for longest, `UNKNOWN` if none has a name, None if the pool has none."""
    seen_s: dict[str, float] = {}
    for one in tracks:
        track = pool.find_track(camera, one["session"], one["number"])
        if track is not None:
            animal = pool.animal_of(track)
            seen_s[animal] = seen_s.get(animal, 0.0) + one["seen_s"]
    return max(seen_s, key=lambda animal: (animal != UNKNOWN, seen_s[animal]), default=None)
