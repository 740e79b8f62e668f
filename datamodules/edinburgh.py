"""Read clips in the layout of the Edinburgh Pig Behaviour data set; the drawn pen has the same layout.

``<root>/<YYYY_MM_DD>/<NNNNNN>/`` holds `color.mp4` and, where the clip is annotated, `output.json`; a drawn clip also
holds `masks.json`. Source: homepages.inf.ed.ac.uk/rbf/PIGDATA. Depth, `background.png` and `scene.json` are not read.
How the labels are understood is in `datamodules.edinburgh_output`.
"""

import logging
import re
from pathlib import Path

from tqdm import tqdm

from datamodules.clip import Clip
from datamodules.edinburgh_output import read_masks, read_output
from datamodules.errors import ClipError
from datamodules.video import VideoFrames, probe_video

DAY = re.compile(r"\d{4}_\d{2}_\d{2}")
VIDEO = "color.mp4"
LABELS = "output.json"
MASKS = "masks.json"

logger = logging.getLogger(__name__)


def find_edinburgh_clips(root: Path) -> list[Path]:
    """List the clip folders below `root`, sorted: those that hold a video or labels, below a folder named by a day."""
    days = sorted(folder for folder in root.iterdir() if folder.is_dir() and DAY.fullmatch(folder.name))
    return [
        clip for day in days for clip in sorted(day.iterdir()) if (clip / VIDEO).is_file() or (clip / LABELS).is_file()
    ]


def read_edinburgh(root: str | Path) -> list[Clip]:
    """Read every clip below `root`, in the order of days and numbers; pictures are decoded only when iterated.

    Clips without `output.json` have no labelled frame. Videos are read through once to count their frames; one whose
    frames come unevenly is warned of, and refused where it is labelled.

    Raises:
        ClipError: There is no clip, or a video is missing or damaged.
        AnnotationError: Labels contradict their layout or their video.
    """
    root = Path(root)
    folders = find_edinburgh_clips(root) if root.is_dir() else []
    if not folders:
        raise ClipError(
            root,
            "holds no clip in the Edinburgh layout",
            f"folders <YYYY_MM_DD>/<NNNNNN>/ with {VIDEO}",
            "Give the folder that holds the day folders.",
        )
    return [_read_clip(folder) for folder in tqdm(folders, desc="read", unit="clip", delay=1)]


def _read_clip(folder: Path) -> Clip:
    video = probe_video(folder / VIDEO)
    labels, masks = folder / LABELS, folder / MASKS
    day = folder.parent.name
    annotations = {}
    if labels.is_file():
        annotations = read_output(labels, video, read_masks(masks, video) if masks.is_file() else None)
    if not annotations and video.pace is not None and not video.pace.even:
        logger.warning("%s: its frames come unevenly: %s. Speeds and other times are off", folder / VIDEO, video.pace)
    return Clip(
        name=f"{day}/{folder.name}",
        day=day,
        fps=video.fps,
        width=video.width,
        height=video.height,
        num_frames=video.num_frames,
        source=VideoFrames(folder / VIDEO),
        annotations=annotations,
    )
