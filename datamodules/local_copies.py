"""Copies of remote files in a folder of limited size that several processes share.

A copy is locked as shared while somebody reads it, exclusively while it is made or deleted. What was used least
recently is deleted.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


class HeldCopy:
    """A local copy that no process deletes until it is closed; a process that dies lets go of it.

    Args:
        path: Of the copy.
        lock: Locked as shared; what makes room asks for it exclusively and does not wait. None where `path` is no copy,
            but the file itself.
    """

    def __init__(self, path: Path, lock: BinaryIO | None) -> None:
        self.path = path
        self._lock = lock

    def close(self) -> None:
        """Let it go: it may be deleted from now on."""
        if self._lock is not None:
            self._lock.close()


class CopyFolder:
    """Keeps copies below a limit; more than that only where those that are held need it.

    Args:
        root: Holds one folder for each URL.
        limit_bytes: Of all shards below `root`, of all URLs.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root = root
        self.limit_bytes = limit_bytes

    @contextmanager
    def room_for(self, path: Path, size: int) -> Iterator[None]:
        """Make room for a copy, and keep it from other processes until the copy is there."""
        taken = path.with_name(f".{path.name}.room")
        with open_lock(self.root / "room") as room:
            fcntl.flock(room, fcntl.LOCK_EX)
            self._make_room(size)
            taken.write_text(str(size), encoding="ascii")
        try:
            yield
        finally:
            taken.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Delete what nobody holds and was used least recently until `size` more bytes fit."""
        found = []
        for path in self.root.glob("*/*/*.tar"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((status.st_mtime, status.st_size, path))
        total = sum(bytes_ for _, bytes_, _ in found) + size + self._promised()
        for _, bytes_, path in sorted(found):
            if total <= self.limit_bytes:
                return
            with _free_lock(path) as is_free:
                if is_free:
                    path.unlink(missing_ok=True)
                    hash_file(path).unlink(missing_ok=True)
                    total -= bytes_

    def _promised(self) -> int:
        """Return the bytes of the copies that are being made; what a killed process was promised is free again."""
        total = 0
        for taken in self.root.glob("*/*/.*.tar.room"):
            with _free_lock(taken.with_name(taken.name[1:].removesuffix(".room"))) as is_free:
                if is_free:
                    taken.unlink(missing_ok=True)
                    continue
            with suppress(FileNotFoundError):
                total += int(taken.read_text(encoding="ascii") or 0)
        return total


def touch(path: Path, size: int | None, sha256: str | None) -> bool:
    """Whether there is a copy of this size and content, which counts as used from now on.

    What is published anew often has the size of before.
    """
    try:
        if size is not None and path.stat().st_size != size:
            return False
        if sha256 is not None and hash_file(path).read_text(encoding="ascii") != sha256:
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def open_lock(path: Path) -> BinaryIO:
    """Open the file beside `path` that processes lock.

    For reading and writing: NFS takes a lock for one of byte ranges, and one that is shared wants to read.
    """
    lock = path.with_name(f".{path.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    return lock.open("a+b")


@contextmanager
def _free_lock(path: Path) -> Iterator[bool]:
    """Lock a copy where nobody holds or makes it, and say whether that is so."""
    with open_lock(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def hash_file(path: Path) -> Path:
    """Return where the SHA-256 of a copy is written down."""
    return path.with_name(f".{path.name}.sha256")
