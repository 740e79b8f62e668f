"""Checkpoints that are whole or absent: a kill while one is written leaves the one before."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from datamodules.files import atomic_path, sync_directory


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's single file, written under a temporary name beside it, synced, renamed.

    Lightning's own writes the temporary file into the system's folder for such, often another disk, and does not sync.
    """

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`."""
        with atomic_path(Path(path)) as temporary:
            super().save_checkpoint(dict(checkpoint), temporary, storage_options)


def partial_directory(path: Path) -> Path:
    """Return where a directory that will be `path` is written."""
    return path.with_name(f".{path.name}.partial")


def replace_directory(path: Path) -> None:
    """Sync what lies in `partial_directory(path)` and put it in the place of `path`.

    A directory cannot be replaced in one step: the old one is moved aside first, and deleted last.
    """
    new, old = partial_directory(path), _aside(path)
    for folder, _, files in os.walk(new):
        for name in files:
            with (Path(folder) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(folder))
    shutil.rmtree(old, ignore_errors=True)
    if path.is_dir():
        path.rename(old)
    else:
        path.unlink(missing_ok=True)
    new.rename(path)
    sync_directory(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_directories(folder: Path) -> None:
    """Put back what a kill within `replace_directory` has left aside."""
    for old in folder.glob(".*.old"):
        path = old.with_name(old.name[1:].removesuffix(".old"))
        if not path.exists():
            old.rename(path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")
