"""Find out in which layout a folder holds its clips, and read them."""

from pathlib import Path
from typing import Literal

from datamodules.clip import Clip
from datamodules.edinburgh import find_edinburgh_clips, read_edinburgh
from datamodules.errors import ClipError, DataError
from datamodules.leftovers import find_leftovers, warn_of_leftovers
from datamodules.mot import find_mot_sequences, read_mot

Layout = Literal["auto", "edinburgh", "mot"]


def read_clips(root: str | Path, layout: Layout = "auto") -> list[Clip]:
    """Read every clip below a folder; warn of recordings and labels that are left out, because they fit no layout.

    Args:
        root: The folder that holds the day folders (Edinburgh) or the sequences (MOTChallenge).
        layout: ``"edinburgh"``, ``"mot"``, or ``"auto"`` to look for both.

    Raises:
        DataError: No layout fits, or both do; or what the layout's reader raises.
    """
    root = Path(root)
    if layout == "auto":
        layout = _detect(root)
    elif root.is_dir():
        _look_for_leftovers(root, find_edinburgh_clips(root) if layout == "edinburgh" else find_mot_sequences(root))
    return read_edinburgh(root) if layout == "edinburgh" else read_mot(root)


def _detect(root: Path) -> Literal["edinburgh", "mot"]:
    if not root.is_dir():
        raise DataError(root, "is not a folder", "a folder of clips", "Check the path.")
    edinburgh, mot = find_edinburgh_clips(root), find_mot_sequences(root)
    if edinburgh and mot:
        raise DataError(
            root,
            f"holds {len(edinburgh)} clips in the Edinburgh layout and {len(mot)} in the MOTChallenge layout",
            "one layout",
            "Choose one with layout=edinburgh or layout=mot.",
        )
    _look_for_leftovers(root, edinburgh or mot)
    if not edinburgh and not mot:
        raise DataError(
            root,
            "holds no clips",
            "<YYYY_MM_DD>/<NNNNNN>/color.mp4 (Edinburgh) or folders with seqinfo.ini (MOTChallenge)",
            "Give the folder that holds the days or the sequences themselves.",
        )
    return "edinburgh" if edinburgh else "mot"


def _look_for_leftovers(root: Path, clips: list[Path]) -> None:
    """Warn of what is not read; where nothing else is there, that is the mistake."""
    leftovers = find_leftovers(root, clips)
    if leftovers and not clips:
        raise ClipError(
            root,
            f"holds no clip of this layout ({leftovers[0]})",
            "recordings in the places and under the names of the layout",
            "Move or rename them; docs/own-farm.md shows both layouts.",
        )
    warn_of_leftovers(leftovers)
