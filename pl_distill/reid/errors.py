"""What can be wrong with a pool, and how a fault of its file is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from datamodules.errors import DataError

_NO_ROOM = ("No space left", "Disk quota exceeded", "File too large")  # as the system words ENOSPC, EDQUOT and EFBIG


class PoolError(DataError):
    """A pool is absent, damaged, in use, of another embedder, or its disk is full."""


def fault(file: Path, reason: object) -> PoolError:
    """Make the error of a file that cannot be read or written.

    Args:
        file: Of the pool.
        reason: What DuckDB said, or what was found.
    """
    for words in _NO_ROOM:
        if words in str(reason):
            return PoolError(
                file, f"cannot be written ({words})", "room on its disk",
                "Free space and start again: what was committed before is whole, this call is not kept.",
            )  # fmt: skip
    return PoolError(
        file, f"is truncated or damaged ({first_line(reason)})", "a whole pool",
        "It was not changed: copy it back from a backup, or move it away and start another pool.",
    )  # fmt: skip


@contextmanager
def told_as_fault(file: Path) -> Iterator[None]:
    """Turn what DuckDB and Arrow raise into the error of a file.

    Raises:
        PoolError: The file cannot be read or written.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException) as error:
        raise fault(file, error) from error


def first_line(reason: object) -> str:
    """Give the beginning of what was said."""
    return str(reason).strip().splitlines()[0][:160]
