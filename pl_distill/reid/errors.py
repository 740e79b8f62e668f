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
    if isinstance(reason, duckdb.OutOfMemoryException | MemoryError):
        return PoolError(
            file, f"was asked for more than there is room for ({first_line(reason)})",
            "a gigabyte of memory, and beside the pool room for what goes beyond",
            "The file is whole: free memory or disk, and start again.",
        )  # fmt: skip
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
        PoolError: The file cannot be read or written, or there is no memory to do it.
        KeyboardInterrupt: DuckDB was stopped in the middle of a question.
    """
    try:
        with stopped_as_ctrl_c():
            yield
    except (duckdb.Error, pa.ArrowException, MemoryError) as error:
        raise fault(file, error) from error


@contextmanager
def stopped_as_ctrl_c() -> Iterator[None]:
    """Turn DuckDB's word for a question that was stopped into Python's."""
    try:
        yield
    except RuntimeError as error:
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise


def first_line(reason: object) -> str:
    """Give the beginning of what was said."""
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0][:160]
