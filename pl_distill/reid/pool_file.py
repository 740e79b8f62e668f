"""The one file of a pool: DuckDB opened with care, its tables, and vectors as blobs of a row.

Why DuckDB and not LanceDB, sqlite-vec or usearch is measured by ``python -m tests.benchmarks.stores`` and told in
docs/animal-record.md.
"""

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamodules.files import sync_directory, temporary_path
from pl_distill.reid.errors import PoolError, fault, first_line, stopped_as_ctrl_c, told_as_fault
from pl_distill.reid.sampling import SamplingPolicy

POOL_FILE = "pool.duckdb"
SCHEMA = 1
_LAYOUT = "ROW_GROUP_SIZE 4096, BLOCK_SIZE 65536"
"""A checkpoint rewrites the last group of rows: with DuckDB's own 122,880 a file of rows this wide doubles as it grows.
Blocks of 64 kB leave the least slack: 1 to 3 % around vectors of 384 values, 16 kB up to 9 %, DuckDB's own 3 to 4 %."""


def connect(file: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    """Open a pool's file.

    Raises:
        PoolError: It is damaged, truncated, in use by another process, or the disk is full.
    """
    if file.exists() and file.stat().st_size < _HEADERS:
        raise fault(file, f"{file.stat().st_size} bytes")
    try:
        with stopped_as_ctrl_c():
            connection = _attached(file, "READ_ONLY" if read_only else _LAYOUT)
            needed = _needed_bytes(connection, file)
    except duckdb.Error as error:
        holder = re.search(r"PID (\d+)", str(error))
        if "set lock" in str(error):
            who = f"process {holder[1]}" if holder else "another process"
            raise PoolError(
                file, f"is in use by {who}", "one process that writes a pool",
                "Wait for it or stop it, or give each camera's process a pool of its own.",
            ) from error  # fmt: skip
        raise fault(file, error) from error
    if file.stat().st_size < needed:
        connection.close()
        raise fault(file, f"{file.stat().st_size} of {needed} bytes")
    return connection


def _needed_bytes(connection: duckdb.DuckDBPyConnection, file: Path) -> int:
    """Bytes that a file must have for all that is in it.

    A checkpoint cuts free blocks off the end of a file, which goes on counting them: where it is shorter than it says,
    its end must be that of the last block in use.
    """
    query = "SELECT total_blocks, block_size FROM pragma_database_size() WHERE database_name = 'pool'"
    ((total, block),) = connection.execute(query).fetchall()
    whole = int(total) * int(block) + _HEADERS
    if file.stat().st_size >= whole:
        return whole
    tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
    written = (
        "SELECT unnest(list_append(additional_block_ids, block_id)) FROM pragma_storage_info('{}') WHERE persistent"
    )
    queries = [written.format(name) for name in tables] + ["SELECT block_id FROM pragma_metadata_info()"]
    blocks = connection.execute(" UNION ALL ".join(queries)).fetchall()
    last = max(int(number) for (number,) in blocks if number is not None)
    return (last + 1) * int(block) + _HEADERS


_MEMORY = "1GB"
"""For what a question must hold, such as rows to be sorted; more goes to the disk. By default it is four fifths of the
machine's memory, which a Jetson shares with its GPU."""
_HEADERS = 12288  # bytes before the first block: three headers of 4096


def _attached(file: Path, mode: str) -> duckdb.DuckDBPyConnection:
    """Open a file, or make one, by DuckDB's own words for how."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "autoload_known_extensions": False,
        "memory_limit": _MEMORY,
        "temp_directory": str(file.with_name(f".{file.name}.tmp")),  # by default .tmp, wherever the process was started
    }
    connection = duckdb.connect(config=config)
    try:
        connection.execute(f"ATTACH '{_quoted(file)}' AS pool ({mode})")
        connection.execute("USE pool")
    except BaseException:
        connection.close()
        raise
    return connection


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


def create_file(file: Path, meta: PoolMeta) -> None:
    """Make the file of an empty pool under another name first: a kill or a full disk leaves none, or a whole one.

    Where another process was quicker, its file stays.

    Raises:
        PoolError: The disk is full, or the log of another pool lies there.
    """
    log = _log_of(file)
    if log.exists() and not file.exists():  # in this order: who writes a log has made the file before
        raise PoolError(
            log, f"lies there without {file.name}", "both, or neither",
            f"Put the {file.name} back that it belongs to; where that is lost, move it away.",
        )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(file) as temporary:
        with told_as_fault(file), closing(_attached(temporary, _LAYOUT)) as connection:
            _create_tables(connection, meta)
        _give_name(temporary, file)


@contextmanager
def _temporary(file: Path) -> Iterator[Path]:
    """Give another name beside a file, under which nothing is left, nor was by a killed process of the same number."""
    temporary = temporary_path(file)
    names = (temporary, _log_of(temporary))
    for name in names:
        name.unlink(missing_ok=True)
    try:
        yield temporary
    finally:
        for name in names:
            name.unlink(missing_ok=True)


def _give_name(temporary: Path, file: Path) -> None:
    """Name a file, but never in the place of another: somebody may have that open."""
    try:
        os.link(temporary, file)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        temporary.rename(file)
    sync_directory(file.parent)


def _log_of(file: Path) -> Path:
    """Where DuckDB keeps what it has committed and not yet written into a file."""
    return file.with_name(f"{file.name}.wal")


def _create_tables(connection: duckdb.DuckDBPyConnection, meta: PoolMeta) -> None:
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
        with stopped_as_ctrl_c():
            meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        sampling = SamplingPolicy(int(meta["per_hour"]), meta["storage"], float(meta["min_quality"]))
        found = PoolMeta(str(meta["embedder"]), int(meta["dimension"]), sampling)
        schema = int(meta["schema"])
    except duckdb.OutOfMemoryException as error:
        raise fault(file, error) from error
    except (duckdb.Error, KeyError, ValueError) as error:
        raise PoolError(
            file, f"is no pool ({first_line(error)})", "a file that a pool wrote", "Name another folder."
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
        connection: To the file; closed, or left as it is where there is an error.
        file: Is replaced.
    """
    connection.execute("CHECKPOINT")  # a log that is left would not match the new file
    with _temporary(file) as temporary:
        connection.execute(f"ATTACH '{_quoted(temporary)}' AS compacted ({_LAYOUT})")
        try:
            for table in ("meta", "tracks", "events", "vectors"):
                order = " ORDER BY id" if table == "vectors" else ""
                connection.execute(f"CREATE TABLE compacted.{table} AS SELECT * FROM {table}{order}")
        finally:
            connection.execute("DETACH compacted")
        connection.close()
        temporary.replace(file)
    return connect(file, read_only=False)


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


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
