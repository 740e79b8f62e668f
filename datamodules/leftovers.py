"""What looks like a recording or its labels and is read as neither, for its name or place is not that of the layout.

A folder of 30 clips of which one is called `color.MP4` is read as 29 without an error; here the thirtieth is named.
"""

import logging
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodules.edinburgh import DAY, LABELS, MASKS, VIDEO

VIDEO_SUFFIXES = frozenset(
    (".3gp", ".asf", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv")
)
_DEEPEST = 4  # folders below the root: one more than any layout has, and links that lead back come to an end
_SHOWN = 10  # of a kind of mistake that is made once for all files, ten say enough
_LAYOUT = f"clips are <YYYY_MM_DD>/<clip>/{VIDEO}"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Leftover:
    """A file or folder that is not read.

    Args:
        path: Where it is.
        reason: Why, as the rest of a sentence after "because".
    """

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} is left out, because {self.reason}"


def find_leftovers(root: Path, clips: Collection[Path]) -> list[Leftover]:
    """List what below `root` looks like a recording or labels and is not read.

    Args:
        root: The folder that is read, in either layout.
        clips: The folders of the clips and sequences that are.
    """
    return list(_below(root, root, frozenset(clips)))


def warn_of_leftovers(leftovers: list[Leftover]) -> None:
    """Log a warning for each; of very many for the first and how many there are."""
    for leftover in leftovers[:_SHOWN]:
        logger.warning("%s", leftover)
    if len(leftovers) > _SHOWN:
        logger.warning("%d more recordings or labels are left out", len(leftovers) - _SHOWN)


def _below(root: Path, folder: Path, clips: frozenset[Path]) -> Iterator[Leftover]:
    depth = len(folder.relative_to(root).parts)
    try:
        with os.scandir(folder) as entries:  # hidden ones, such as ._color.mp4 of a Mac, are nobody's recordings
            shown = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except PermissionError:  # lost+found of a disk
        return
    folders = [name for name, is_folder in shown if is_folder]
    files = [name for name, is_folder in shown if not is_folder]
    if folder in clips:
        yield from _in_clip(folder, folders, files)
        return
    if (sequence := _as_sequence(folder, folders, files, depth)) is not None:
        yield from sequence
        return
    for name in files:
        if (Path(name).suffix.lower() in VIDEO_SUFFIXES or name.casefold() == LABELS) and (
            reason := _misplaced((folder / name).relative_to(root).parts)
        ):
            yield Leftover(folder / name, reason)
    if depth < _DEEPEST:
        for name in folders:
            yield from _below(root, folder / name, clips)


def _in_clip(folder: Path, folders: list[str], files: list[str]) -> Iterator[Leftover]:
    """Name the labels, masks or video of a clip that is read without them."""
    if "seqinfo.ini" in files:
        if not (folder / "gt" / "gt.txt").is_file():
            yield from (
                Leftover(path, "labels of a sequence are gt/gt.txt") for path in _truths(folder, folders, files)
            )
        return
    for wanted in (VIDEO, LABELS, MASKS):
        if wanted not in files:
            for name in files:
                if name.casefold() == wanted:
                    yield Leftover(folder / name, f"it must be called {wanted}")


def _truths(folder: Path, folders: list[str], files: list[str]) -> list[Path]:
    inside = [folder / name for name in folders if name.casefold() == "gt"]
    texts = [path for place in inside for path in sorted(place.iterdir()) if path.suffix.lower() == ".txt"]
    return [*texts, *(folder / name for name in files if name.casefold() == "gt.txt")]


def _as_sequence(folder: Path, folders: list[str], files: list[str], depth: int) -> list[Leftover] | None:
    """Say why a folder that looks like a sequence is not read; None where it does not look like one."""
    if "seqinfo.ini" in files:
        deep = f"it lies {depth} folders deep, and sequences lie at most 2 deep"
        return [Leftover(folder, deep)] if depth > 2 else []
    for name in files:
        if name.casefold() == "seqinfo.ini":
            return [Leftover(folder, f"its {name} must be called seqinfo.ini")]
    for name in folders:
        if name.casefold() == "img1" or (name.casefold() == "gt" and _truths(folder, folders, [])):
            return [Leftover(folder, f"it has {name}/ but no seqinfo.ini")]
    return None


def _misplaced(parts: tuple[str, ...]) -> str | None:
    """Say what is wrong with the place of a video or of labels, given from the root on; None for that of a clip."""
    *folders, name = parts
    if len(folders) == 2 and DAY.fullmatch(folders[0]):
        if name in (VIDEO, LABELS):
            return None
        return f"it must be called {LABELS if name.casefold() == LABELS else VIDEO}"
    if len(folders) == 2:
        return f"{folders[0]} is no day, and {_LAYOUT}"
    if len(folders) == 1 and DAY.fullmatch(folders[0]):
        return f"it lies in no folder of its own, and {_LAYOUT}"
    return f"it lies {len(folders)} folders deep, and {_LAYOUT}"
