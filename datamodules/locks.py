"""A lock that several processes, also of several machines on one file system, can agree on."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock that the system takes back even after a kill; give whether it could be had.

    Args:
        path: Its file, which stays; made if it does not exist, with its folder.
        wait: Whether to wait for it where another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
