"""A lock that several processes, also of several machines on one file system, can agree on."""

import errno
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock that the system takes back even after a kill; give whether it could be had.

    Where a file system has no locks (Lustre that was mounted without them) it is given to everybody, with a warning.

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
            return
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logger.warning("%s: this file system has no locks; see to it that nobody else writes there", path.parent)
        yield True
