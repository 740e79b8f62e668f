"""Checkpoints that are whole or absent: a kill while one is written leaves the one before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from datamodules.files import atomic_path


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's single file, written under a temporary name beside it, synced, renamed.

    Lightning's own writes the temporary file into the system's folder for such, often another disk, and does not sync.
    """

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`."""
        with atomic_path(Path(path)) as temporary:
            super().save_checkpoint(dict(checkpoint), temporary, storage_options)
