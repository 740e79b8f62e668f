"""What an interrupted `write_shards` has finished, so that the next one goes on from there.

`journal.jsonl` lies in a shard folder as long as it is unfinished: a line that says what is being written, then a line
for each finished shard. Lines are appended and synced; one that a kill cut in two is not counted. Where there is a
journal, the shards beside it are ours to replace.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from datamodules.files import write_json_lines
from datamodules.shard_manifest import ShardEntry, shard_entry

FILE = "journal.jsonl"


class ShardJournal:
    """The journal of one folder.

    Args:
        folder: Of the shards.
        recipe_sha256: Of what is to be written: clips, split, layout of the shards and quality of the pictures.

    Attributes:
        finished: Shards by file that an earlier run of the same recipe has finished and that still have their size.
    """

    def __init__(self, folder: Path, recipe_sha256: str) -> None:
        self.path = folder / FILE
        self._head = {"recipe_sha256": recipe_sha256}
        self.finished = {entry.file: entry for entry in self._read() if is_there(folder, entry)}

    @property
    def exists(self) -> bool:
        """Whether the folder is being written."""
        return self.path.exists()

    def begin(self) -> None:
        """Write the journal anew, with what is finished so far."""
        write_json_lines(self.path, [self._head, *map(asdict, self.finished.values())])

    def append(self, entry: ShardEntry) -> None:
        """Record that a shard is finished; its tar must already have its final name."""
        self.finished[entry.file] = entry
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def end(self) -> None:
        """Remove the journal: the folder is finished."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> list[ShardEntry]:
        if not self.path.exists():
            return []
        head, *lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        if head != json.dumps(self._head):
            return []
        entries: list[ShardEntry] = []
        for line in lines:
            try:
                entries.append(shard_entry(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                break  # cut in two by a kill; nothing behind it can be trusted
        return entries


def is_there(folder: Path, entry: ShardEntry) -> bool:
    """Whether a shard lies in its place with its size; its bytes are compared by `verify_shards` only."""
    path = folder / entry.file
    return path.is_file() and path.stat().st_size == entry.bytes
