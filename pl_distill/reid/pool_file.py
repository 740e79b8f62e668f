"""The one file of a pool: DuckDB opened with care, its tables, and vectors as blobs of a row.

Why DuckDB and not LanceDB, sqlite-vec or usearch is measured by ``python -m tests.benchmarks.stores`` and told in
docs/animal-record.md.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamodules.files import temporary_path
from pl_distill.reid.errors import PoolError
from pl_distill.reid.sampling import SamplingPolicy

POOL_FILE = "pool.duckdb"
SCHEMA = 1
_LAYOUT = "ROW_GROUP_SIZE 4096, BLOCK_SIZE 65536"
"""A checkpoint rewrites the last group of rows: with DuckDB's own 122,880 a file of rows this wide doubles as it grows.
Blocks of 64 kB leave the least slack: 1 to 3 % around vectors of 384 values, 16 kB up to 9 %, DuckDB's own 3 to 4 %."""


def connect(file: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    """Open a pool's file, or make an empty one.

    Raises:
        PoolError: It is damaged, truncated, or in use by another process.
    """
    if file.exists() and file.stat().st_size < 12288:  # DuckDB's three headers of 4096 bytes
        raise damaged(file, f"{file.stat().st_size} bytes")
    connection = duckdb.connect(config={"threads": 1, "autoload_known_extensions": False})
    try:
        mode = "READ_ONLY" if read_only else _LAYOUT
        connection.execute(f"ATTACH '{_quoted(file)}' AS pool ({mode})")
        connection.execute("USE pool")
        row = connection.execute(
            "SELECT total_blocks * block_size FROM pragma_database_size() WHERE database_name = 'pool'"
        ).fetchone()
    except duckdb.Error as error:
        connection.close()
        holder = re.search(r"PID (\d+)", str(error))
        if "set lock" in str(error):
            who = f"process {holder[1]}" if holder else "another process"
            raise PoolError(
                file, f"is in use by {who}", "one process that writes a pool",
                "Wait for it or stop it, or give each camera's process a pool of its own.",
            ) from error  # fmt: skip
        raise damaged(file, error) from error
    assert row is not None
    if file.stat().st_size < int(row[0]):
        connection.close()
        raise damaged(file, f"{file.stat().st_size} of {int(row[0])} bytes")
    return connection


def damaged(file: Path, reason: object) -> PoolError:
    """Make the error of a file that cannot be read."""
    return PoolError(
        file, f"is truncated or damaged ({_first_line(reason)})", "a whole pool",
        "It was not changed: copy it back from a backup, or move it away and start another pool.",
    )  # fmt: skip


@dataclass(frozen=True)
class PoolMeta:
    """What a pool remembers of itself.

    Args:
        embedder: Identity of the network that made its embeddings.
        dimension: Length of an embedding.
        sampling: Which of them are kept.
    """

    embedder: str
    dimension: int
    sampling: SamplingPolicy


def create_tables(connection: duckdb.DuckDBPyConnection, meta: PoolMeta) -> None:
    """Make the tables of an empty pool."""
    scale = ", scale FLOAT" if meta.sampling.storage == "int8" else ""
    execute = connection.execute
    connection.begin()
    execute("CREATE TABLE meta (key VARCHAR, value VARCHAR)")
    execute("CREATE TABLE tracks (track INTEGER, camera VARCHAR, session VARCHAR, number BIGINT, animal VARCHAR)")
    execute("CREATE TABLE events (event INTEGER, time TIMESTAMP, kind VARCHAR, detail VARCHAR, undone BOOLEAN)")
    execute(f"CREATE TABLE vectors (id BIGINT, track INTEGER, time TIMESTAMP, quality UTINYINT, vector BLOB{scale})")
    content = {
        "schema": SCHEMA,
        "embedder": meta.embedder,
        "dimension": meta.dimension,
        **asdict(meta.sampling),
    }
    for key, value in content.items():
        execute("INSERT INTO meta VALUES (?, ?)", [key, str(value)])
    connection.commit()
    execute("CHECKPOINT")


def read_meta(connection: duckdb.DuckDBPyConnection, file: Path) -> PoolMeta:
    """Read what a pool remembers of itself.

    Raises:
        PoolError: It is no pool, or one of another version.
    """
    try:
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        sampling = SamplingPolicy(int(meta["per_hour"]), meta["storage"], float(meta["min_quality"]))
        found = PoolMeta(str(meta["embedder"]), int(meta["dimension"]), sampling)
        schema = int(meta["schema"])
    except (duckdb.Error, KeyError, ValueError) as error:
        raise PoolError(
            file, f"is no pool ({_first_line(error)})", "a file that a pool wrote", "Name another folder."
        ) from error
    if schema != SCHEMA:
        raise PoolError(file, f"has schema {schema}", str(SCHEMA), "Use the version that wrote it.")
    return found


def check_meta(
    found: PoolMeta, file: Path, embedder: str | None, dimension: int | None, sampling: SamplingPolicy | None
) -> None:
    """See that a pool is the one that is wanted; None wants nothing.

    Raises:
        PoolError: It is of another embedder, dimension or storage.
    """
    if embedder is not None and embedder != found.embedder:
        raise PoolError(
            file,
            f"holds embeddings of embedder {found.embedder[:16]}",
            f"{embedder[:16]}, the one that is loaded",
            "Load the one that filled it, or start another pool: embeddings of two networks cannot be compared.",
        )
    if dimension is not None and dimension != found.dimension:
        raise PoolError(file, f"holds embeddings of {found.dimension} values", f"{dimension}", "Start another pool.")
    if sampling is not None and sampling.storage != found.sampling.storage:
        raise PoolError(
            file,
            f"stores {found.sampling.storage}",
            f"{sampling.storage}",
            "Keep its storage, or start another pool.",
        )


def write_compacted(connection: duckdb.DuckDBPyConnection, file: Path) -> duckdb.DuckDBPyConnection:
    """Write a file anew without what was deleted, beside the old one first; give the connection to it.

    Args:
        connection: To the file; closed.
        file: Is replaced.
    """
    temporary = temporary_path(file)
    temporary.unlink(missing_ok=True)
    try:
        connection.execute(f"ATTACH '{_quoted(temporary)}' AS compacted ({_LAYOUT})")
        for table in ("meta", "tracks", "events", "vectors"):
            order = " ORDER BY id" if table == "vectors" else ""
            connection.execute(f"CREATE TABLE compacted.{table} AS SELECT * FROM {table}{order}")
        connection.execute("DETACH compacted")
        connection.close()
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
        reopened = connect(file, read_only=False)
    return reopened


def to_blobs(stored: NDArray[np.generic]) -> pa.BinaryArray:
    """Give values (N, D) as one blob a row, without a copy."""
    number, width = len(stored), stored.shape[1] * stored.itemsize
    offsets = (np.arange(number + 1) * width).astype(np.int32)
    rows = np.ascontiguousarray(stored)
    return pa.BinaryArray.from_buffers(pa.binary(), number, [None, pa.py_buffer(offsets), pa.py_buffer(rows)])


def from_blobs(column: pa.ChunkedArray, dimension: int, kind: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Give the values (N, D) of one blob a row.

    Raises:
        pyarrow.ArrowException: A blob is of another length.
    """
    width = dimension * kind.itemsize
    parts = [np.empty((0, dimension), kind)]
    for chunk in column.chunks:
        rows = chunk.cast(pa.binary(width))
        flat = np.frombuffer(rows.buffers()[1], kind, len(rows) * dimension, rows.offset * width)
        parts.append(flat.reshape(-1, dimension))
    return parts[1] if len(parts) == 2 else np.concatenate(parts)


def _first_line(reason: object) -> str:
    return str(reason).strip().splitlines()[0][:160]


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
