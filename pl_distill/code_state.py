"""Which code made a result: a hash of its source, finer than a version number."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pl_distill
from datamodules.files import sha256_of

ROOT = Path(pl_distill.__file__).parents[1]
"""Holds the packages."""


def code_sha256(places: Iterable[str], root: Path = ROOT) -> str:
    """Identify the Python sources at some places: what was made by those of another state is not taken for today's.

    Args:
        places: Folders and files, relative to `root`.
        root: Holds them.
    """
    found = {
        path
        for place in places
        for path in ((root / place).rglob("*.py") if (root / place).is_dir() else [root / place])
    }
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(f"{path.relative_to(root).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()
