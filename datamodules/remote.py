"""Shards that lie behind a URL, read through a local folder of limited size.

fsspec (github.com/fsspec/filesystem_spec) opens the URL: https and http, s3 with s3fs, gs with gcsfs. WebDataset's own
openers run a shell for what begins with ``pipe:``; nothing here does. A file is downloaded under a temporary name,
compared with the size and hash that the manifest says, and renamed; what was used least recently is deleted.
"""

import errno
import fcntl
import hashlib
import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from datamodules.errors import DataError, UserError
from datamodules.files import atomic_path
from datamodules.local_copies import CopyFolder, HeldCopy, hash_file, open_lock, touch

log = logging.getLogger(__name__)

PROTOCOLS = ("https", "http", "s3", "gs", "file", "memory")
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "https": "aiohttp", "http": "aiohttp"}
CHUNK = 1 << 20
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class RemoteError(DataError):
    """A URL is none that can be read, or reading it failed for good."""


def is_url(place: str | Path) -> bool:
    """Whether `place` is a URL, or pretends to be one, rather than a path."""
    head = str(place).partition(":")[0]
    return ":" in str(place) and head.isalnum() and (f"{head}://" in str(place) or head == "pipe" or "::" in str(place))


class RemoteFolder:
    """A folder behind a URL, and its copy on the local disk.

    Several processes may share the local folder. It grows up to `limit_bytes`, more only where files that are held
    need it.

    Args:
        url: Of the folder, without credentials: those belong into the environment of s3fs, gcsfs or ``~/.netrc``.
        local: Folder for the copies; each URL has its own below it.
        limit_bytes: Of all files in `local`, of all URLs.
        attempts: How often a file is asked for.
        first_wait_s: Seconds before the second attempt; each further wait is twice as long, varied by up to a half so
            that hundreds of processes do not return at once.

    Raises:
        RemoteError: The URL is of another kind, or holds credentials or a query.
    """

    def __init__(
        self, url: str, local: str | Path, *, limit_bytes: int, attempts: int = 6, first_wait_s: float = 1.0
    ) -> None:
        parts = urlsplit(url)
        if "::" in url or parts.scheme not in PROTOCOLS:
            raise RemoteError(url, "cannot be read", ", ".join(f"{one}://" for one in PROTOCOLS[:4]), "Correct it.")
        if parts.query or parts.fragment or "@" in parts.netloc:
            shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
            fix = "Give credentials by the environment or ~/.netrc, and the folder's plain URL."
            raise RemoteError(
                shown, "has a query or credentials in it", "a folder's URL, to which names are added", fix
            )
        self.url = url.rstrip("/")
        self.copies = CopyFolder(Path(local), limit_bytes)
        self.folder = self.copies.root / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.attempts = attempts
        self.first_wait_s = first_wait_s

    def fetch(self, file: str, *, sha256: str | None = None, fresh: bool = False) -> Path:
        """Return where a copy of a small `file` lies, such as a manifest; it is never deleted.

        Args:
            file: Path below the URL.
            sha256: Its hash, where it is known: a copy of another content is not taken for it.
            fresh: Download it again, since it may have changed.

        Raises:
            RemoteError: It is not there, is not what it should be, or could not be read in all attempts.
        """
        path = self._path(file)
        with open_lock(path) as lock:  # of several processes one downloads, the others find it
            fcntl.flock(lock, fcntl.LOCK_EX)
            if fresh or not touch(path, None, sha256):
                self._download(file, path, None, sha256)
        return path

    def hold(self, file: str, *, size: int, sha256: str) -> HeldCopy:
        """Return a copy of a shard, which is downloaded where there is none.

        Args:
            file: Path below the URL.
            size: Its bytes.
            sha256: Its hash: a copy of another content is not taken for it.

        Raises:
            RemoteError: It is not there, is not what it should be, or could not be read in all attempts.
        """
        path = self._path(file)
        lock = open_lock(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            while not touch(path, size, sha256):
                fcntl.flock(lock, fcntl.LOCK_UN)  # NFS would keep it while it waits: two would wait for each other
                fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes one downloads, the others find it
                if not touch(path, size, sha256):
                    with self.copies.room_for(path, size):
                        self._download(file, path, size, sha256)
                fcntl.flock(lock, fcntl.LOCK_SH)  # not in one step: another may have made room in between
        except BaseException:
            lock.close()
            raise
        return HeldCopy(path, lock)

    def _path(self, file: str) -> Path:
        parts = PurePosixPath(file).parts
        if not parts or file.startswith("/") or "\\" in file or any(part in ("..", ".") for part in parts):
            raise RemoteError(self.url, f"names the file {file!r}", "a path below it", "Do not trust this manifest.")
        return self.folder.joinpath(*parts)

    def _download(self, file: str, path: Path, size: int | None, sha256: str | None) -> None:
        where = f"{self.url}/{file}"
        for leftover in path.parent.glob(f".{path.name}.partial-*"):  # of a process that was killed; we hold the lock
            leftover.unlink(missing_ok=True)
        for attempt in range(1, self.attempts + 1):
            try:
                self._copy(where, path, size, sha256)
            except Exception as error:  # every file system of fsspec has errors of its own
                if not _is_final(error):
                    self._wait(where, attempt, error)
                    continue
                if isinstance(error, OSError) and error.errno in DISK_FULL:
                    fix = "Free some of that disk, give a folder on another, or a smaller copies.limit_gib."
                    raise RemoteError(
                        where, f"does not fit into {self.copies.root} ({_brief(error)})", "room", fix
                    ) from error
                package = PACKAGES.get(urlsplit(where).scheme, "")
                fix = (
                    f"Install it: pip install {package}." if isinstance(error, ImportError) else "Check URL and rights."
                )
                raise RemoteError(where, f"cannot be read ({_brief(error)})", "a file of this folder", fix) from error
            else:
                return

    def _wait(self, where: str, attempt: int, error: Exception) -> None:
        if attempt == self.attempts:
            found = f"could not be read in {attempt} attempts, at last because of {_brief(error)}"
            fix = "Check the network and the server, then start again; what is there already stays."
            raise RemoteError(where, found, "a whole file", fix) from error
        wait = self.first_wait_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
        log.warning("%s: %s; attempt %d in %.1f s", where, _brief(error), attempt + 1, wait)
        time.sleep(wait)

    def _copy(self, where: str, path: Path, size: int | None, sha256: str | None) -> None:
        import fsspec

        # Opened anew for each file: a file system of before a fork is of no use in a worker.
        system, name = fsspec.core.url_to_fs(where, **_options(where))
        digest, written = hashlib.sha256(), 0
        with atomic_path(path) as temporary:
            with (
                system.open(name, "rb", cache_type="readahead", block_size=8 * CHUNK) as source,
                temporary.open("wb") as copy,
            ):
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    written += len(chunk)
                    copy.write(chunk)
            if size is not None and written != size:
                raise OSError(f"{written} bytes instead of {size}")
            if sha256 is not None and digest.hexdigest() != sha256:
                raise OSError(f"SHA-256 {digest.hexdigest()} instead of {sha256}")
            hash_file(path).unlink(missing_ok=True)  # of the copy that is replaced now
        with atomic_path(hash_file(path)) as temporary:
            temporary.write_text(digest.hexdigest(), encoding="ascii")


@dataclass(frozen=True)
class LocalCopies:
    """Where copies of remote shards lie.

    Args:
        folder: On a local disk; processes of a node, and runs, may share it.
        limit_gib: What all copies may take. An epoch that does not fit is downloaded again each time, so give the
            node's share of the data set where the disk has it; twice `block_shards` of each worker, images and maps,
            are held whatever this says.
        attempts: How often a file is asked for; the waits between them double from one second.

    Raises:
        UserError: A number is not positive.
    """

    folder: str = "~/.cache/pl-distill/shards"
    limit_gib: float = 100.0
    attempts: int = 6

    def __post_init__(self) -> None:
        if self.limit_gib <= 0 or self.attempts < 1:
            found = f"has limit_gib {self.limit_gib} and attempts {self.attempts}"
            raise UserError("copies", found, "positive numbers", "Correct them.")

    def remote(self, place: str) -> RemoteFolder | None:
        """Return the folder behind a URL; None where `place` is a path.

        Raises:
            RemoteError: It is a URL that cannot be read.
        """
        if not is_url(place):
            return None
        limit = int(self.limit_gib * 2**30)
        return RemoteFolder(place, Path(self.folder).expanduser(), limit_bytes=limit, attempts=self.attempts)


COPIES = LocalCopies()


def _options(url: str) -> dict[str, Any]:
    if urlsplit(url).scheme in ("http", "https"):
        from aiohttp import ClientTimeout

        # A connection that says nothing for a minute is dead; a large file may take long.
        timeout = ClientTimeout(total=None, sock_connect=30, sock_read=60)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}  # ~/.netrc and https_proxy
    return {}


def _is_final(error: BaseException) -> bool:
    """Whether asking again will not help: no such file, no right to it, no file system for it, or no room for it."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:  # fsspec says so of whatever HTTP answers
        return getattr(error.__cause__, "status", None) in (401, 403, 404, 410)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return True
    return isinstance(error, FileNotFoundError | PermissionError | ImportError)


def _brief(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
