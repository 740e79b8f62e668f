"""Files and folders that are whole or absent: written under a temporary name, synced, renamed."""

import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def temporary_path(path: Path) -> Path:
    """Return where this process writes what will be `path`: beside it, under a name that no other process takes.

    Host and process number: containers on one file system number their processes alike.
    """
    return path.with_name(f".{path.name}.partial-{socket.gethostname()}-{os.getpid()}")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success sync it and rename it to `path`, on an error delete it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path, *, replace: bool) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`; on success sync all in it and rename it, on an error delete it.

    Args:
        path: Of the folder; those above it are made.
        replace: Whether the folder takes the place of what is there, as by `replace_directory`; one process at a time
            may write it then, which deletes what a kill has left of another. Without it many may try.

    Raises:
        OSError: Without `replace`, and there is something other than an empty folder when the block ends.
    """
    temporary = partial_directory(path) if replace else temporary_path(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if replace:
            replace_directory(path)
        else:
            _sync_tree(temporary)
            temporary.rename(path)
            sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _own_mode() -> int:
    """Return the rights of a file that this process makes; the system tells its umask only by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


_MODE = _own_mode()


def _sync(path: Path) -> None:
    """Bring a file to the disk, with the rights of any other: safetensors 0.8 hides what it writes from a group."""
    if not path.is_symlink():
        path.chmod(_MODE)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make a rename inside `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_json_lines(path: Path, records: Iterable[Any]) -> None:
    """Write one line of JSON for each of `records`, all or none."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def file_name_of(name: str) -> str:
    """Return a name of a file or folder for any name: letters, digits, '-' and '_' of ASCII stay, others become '_'.

    Where a character had to go, a hash of the whole name makes sure that two names stay two.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def partial_directory(path: Path) -> Path:
    """Return where a directory that will be `path` is written."""
    return path.with_name(f".{path.name}.partial")


def replace_directory(path: Path) -> None:
    """Sync what lies in `partial_directory(path)` and put it in the place of `path`.

    A directory cannot be replaced in one step: the old one is moved aside first, and deleted last.
    """
    new, old = partial_directory(path), _aside(path)
    _sync_tree(new)
    shutil.rmtree(old, ignore_errors=True)
    if path.is_dir():
        path.rename(old)
    else:
        path.unlink(missing_ok=True)
    new.rename(path)
    sync_directory(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_tree(directory: Path) -> None:
    for folder, _, files in os.walk(directory):
        for name in files:
            _sync(Path(folder) / name)
        sync_directory(Path(folder))


def recover_directories(folder: Path) -> None:
    """Put back whatever a kill within `replace_directory` has left aside in a folder that holds nothing of others."""
    for old in folder.glob(".*.old"):
        recover_directory(_whole(old))


def await_recovered(folder: Path, patience_s: float = 60.0) -> None:
    """Wait for another process that does `recover_directories` there, at most so many seconds."""
    give_up = time.monotonic() + patience_s
    while time.monotonic() < give_up and any(not _whole(old).exists() for old in folder.glob(".*.old")):
        time.sleep(0.2)


def recover_directory(path: Path) -> None:
    """Put `path` back where a kill within `replace_directory` has left it aside."""
    if not path.exists():
        with suppress(FileNotFoundError):  # there is none, or another process of the run was quicker
            _aside(path).rename(path)


def _whole(old: Path) -> Path:
    return old.with_name(old.name[1:].removesuffix(".old"))


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")
