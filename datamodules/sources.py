"""What a user points at as video: a file, a folder of pictures, a pattern, or a camera. One kind of frames from all."""

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

from datamodules.addresses import SCHEMES, is_live, scheme_of, without_secrets
from datamodules.clip import Frame
from datamodules.errors import ClipError
from datamodules.images import ImageFiles
from datamodules.live import LiveStream
from datamodules.video import VideoFrames, VideoInfo, probe_video, since_the_first

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


class Source(Protocol):
    """Frames in order, without labels."""

    @property
    def name(self) -> str:
        """As it may be shown and stored: without passwords."""

    @property
    def fps(self) -> float | None:
        """Frames per second; None for a camera, whose frames come when they come."""

    @property
    def num_frames(self) -> int | None:
        """How many there will be; None where nobody knows."""

    @property
    def ends(self) -> bool:
        """Whether it ends by itself, as a camera does not; of an address known from the first frame on."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that are read; none of a camera."""

    def frames(self) -> Iterator[Frame]:
        """Decode from the first frame to the last."""


@dataclass(frozen=True)
class VideoFiles:
    """Video files, one after the other, as one stream: the hours of a camera.

    Times are those of the files' own clocks, so that a pause in a recording is one, too.

    Args:
        name: What the user gave.
        paths: The files in order.
        infos: What each holds.
        pause_s: Seconds from the end of a file to the begin of the next; files do not tell.
    """

    name: str
    paths: tuple[Path, ...]
    infos: tuple[VideoInfo, ...]
    pause_s: float = 0.0

    @property
    def fps(self) -> float:
        """Of the first file, on average."""
        return self.infos[0].fps

    @property
    def num_frames(self) -> int:
        """Of all files."""
        return sum(info.num_frames for info in self.infos)

    @property
    def ends(self) -> bool:
        """After its last file."""
        return True

    def frames(self) -> Iterator[Frame]:
        """Decode the files from first to last; indices and times go on from file to file."""
        index, begin_s = 0, 0.0
        for path, info in zip(self.paths, self.infos, strict=True):
            last_s = begin_s
            for time_s, image in since_the_first(VideoFrames(path, allow_damage=True).timed(), info.fps):
                last_s = begin_s + time_s
                yield Frame(index, last_s, image, None)
                index += 1
            begin_s += info.num_frames / info.fps
            if begin_s <= last_s:  # the file's rate leaves a pause out
                begin_s = last_s + 1 / info.fps
            begin_s += self.pause_s


@dataclass(frozen=True)
class PictureFiles:
    """Picture files as a stream.

    Args:
        name: What the user gave.
        paths: The files in order.
        fps: Pictures per second that they stand for.
    """

    name: str
    paths: tuple[Path, ...]
    fps: float

    @property
    def num_frames(self) -> int:
        """One per file."""
        return len(self.paths)

    @property
    def ends(self) -> bool:
        """After its last picture."""
        return True

    def frames(self) -> Iterator[Frame]:
        """Decode the pictures from first to last."""
        for index, image in enumerate(ImageFiles(self.paths)):
            yield Frame(index, index / self.fps, image, None)


def open_source(
    given: str, *, picture_fps: float = 6.0, patience_s: float = 600.0, file_pause_s: float = 0.0
) -> Source:
    """Find out what the user points at; videos are checked to end where they should, nothing is decoded yet.

    Args:
        given: A video or picture file, a folder of pictures, a pattern of either (``clips/*.mp4``; several videos are
            one stream), an address (``rtsp://...``), or a device (``/dev/video0``). Files come in the order of their
            names, numbers by value: ``9.jpg`` before ``10.jpg``.
        picture_fps: Frames per second that pictures stand for; they have no rate of their own.
        patience_s: How long to reach for a camera that dropped out.
        file_pause_s: Seconds from the end of each video of a pattern to the begin of the next.

    Raises:
        ClipError: There is no such thing, it is empty or damaged, or it is an address that is not opened.
    """
    path = Path(given)
    if is_live(given):
        return LiveStream(given, patience_s)
    if path.is_dir():
        return _pictures_of_folder(path, picture_fps)
    if path.is_file():
        return _of_files(given, [path], picture_fps, file_pause_s)
    shown = without_secrets(given)  # whatever it is, it may have been meant as an address
    if glob.has_magic(given):
        found = [Path(name) for name in glob.glob(given, recursive=True)]  # noqa: PTH207  # also absolute patterns
        files = sorted((one for one in found if one.is_file()), key=_natural)
        if not files:
            raise ClipError(shown, "matches no file", "a pattern of videos or pictures", "Correct the pattern.")
        return _of_files(given, files, picture_fps, file_pause_s)
    if scheme_of(given) is not None:
        raise ClipError(
            shown,
            "is an address that is not opened",
            f"{'://, '.join(SCHEMES)}://, or a file",
            "Name a file or camera.",
        )
    raise ClipError(
        shown, "is not there", "a video, a folder of pictures, a pattern, or the address of a camera", "Check the path."
    )


def begun(source: Source) -> Iterator[Frame]:
    """Wait for the first frame of a source; give all frames from it on.

    Who replaces an older run's files does so after this: a camera may not answer.

    Raises:
        ClipError: It cannot be opened, or gives no frame.
    """
    frames = source.frames()
    first = next(frames, None)
    if first is None:
        raise ClipError(source.name, "gives no picture", "at least one", "Check that a player can show it.")
    return chain((first,), frames)


def _of_files(given: str, files: list[Path], picture_fps: float, file_pause_s: float) -> Source:
    pictures = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES]
    if pictures and len(pictures) < len(files):
        other = next(path for path in files if path not in pictures)
        raise ClipError(
            given,
            f"matches pictures and other files, {pictures[0].name} and {other.name}",
            "files of one kind",
            "Narrow the pattern.",
        )
    if pictures:
        return PictureFiles(given, tuple(files), picture_fps)
    infos = tuple(probe_video(path, allow_damage=True) for path in files)
    return VideoFiles(given, tuple(files), infos, file_pause_s)


def _pictures_of_folder(folder: Path, picture_fps: float) -> Source:
    pictures = (path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())
    files = sorted((path for path in pictures if not path.name.startswith(".")), key=_natural)  # ._1.png of a Mac
    if not files:
        raise ClipError(
            folder,
            f"holds no pictures ({', '.join(PICTURE_SUFFIXES)})",
            "a folder of pictures",
            f"For videos give a pattern in quotes: '{folder}/*.mp4'.",
        )
    return PictureFiles(str(folder), tuple(files), picture_fps)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which numbers in a path count by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path)) if part]
