"""Video files, read: one sequential decoder for every reader; `datamodules.video_writer` writes them.

PyAV (https://pyav.basswood-io.com) and not torchcodec: its wheels bundle FFmpeg for x86 and aarch64, so that nothing
has to match a system's FFmpeg or a torch release, and it encodes too. Not OpenCV's reader: it ends without a word
where a file is damaged.

Frames are counted by demuxing, never taken from the header: headers lie, after an interrupted recording above all.
Pictures are given as players show them, turned where the file says so (`datamodules.orientation`).
"""

import logging
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from datamodules.clip import Image
from datamodules.errors import ClipError
from datamodules.files import sha256_of
from datamodules.orientation import Orientation, orientation_of
from datamodules.pace import Pace, pace_of

# By default libswscale rounds as the CPU's vector units like it. Interpolation concerns colour: nothing is resized.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_STILLS = Disposition.attached_pic | Disposition.timed_thumbnails
_ROUNDING_S = 1e-3  # Matroska's clock, the coarsest that is usual: a time so near to an even rate is that of the rate
_PICTURES_LIKE_MP4 = (".avif", ".heic", ".heif")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Args:
        width: Pixels of a picture as it is shown.
        height: The same.
        fps: Frames per second, on average over the file.
        num_frames: Pictures that decoding will give.
        pace: How evenly they come; None where the file does not tell.
    """

    width: int
    height: int
    fps: float
    num_frames: int
    pace: Pace | None = None


def probe_video(path: str | Path, *, allow_damage: bool = False) -> VideoInfo:
    """Read a video's size and rate and count its frames, of which only the first is decoded.

    Args:
        path: The video file.
        allow_damage: Whether frames may be damaged, as where packets of a transport stream were lost: a warning then.

    Raises:
        ClipError: The file is missing, is no video, or ends before its last frame.
    """
    path = Path(path)
    num_frames = damaged = 0
    orientation: Orientation | None = None
    shown = array("q")  # when, in the stream's unit of time
    with _open_video(path) as (container, stream):
        stream.codec_context.thread_count = 1  # more would want more packets before they give the first picture
        for packet in _whole_packets(path, container, stream, allow_damage=allow_damage):
            orientation = orientation or _first_orientation(stream, packet)
            damaged += packet.is_corrupt
            if not packet.is_discard:
                num_frames += 1
                if packet.pts is not None:
                    shown.append(packet.pts)
        if damaged:
            logger.warning("%s: %d of %d frames are damaged; what is missing is guessed", path, damaged, num_frames)
        rate = stream.average_rate or stream.guessed_rate
        if _is_picture(path, container, num_frames):
            raise ClipError(
                path,
                "is a picture",
                "a video, or pictures as .jpg or .png",
                "Convert pictures to these; --picture_fps says how far apart they lie.",
            )
        if num_frames == 0 or rate is None:
            raise _no_video(path, "holds no frames")
        orientation = orientation or _first_orientation(stream, None) or Orientation()
        width, height = orientation.size(stream.codec_context.width, stream.codec_context.height)
        told = tells_times(container) and stream.time_base is not None and len(shown) == num_frames
        pace = pace_of(np.asarray(shown) * float(stream.time_base or 1), float(rate)) if told else None
        return VideoInfo(width, height, float(rate), num_frames, pace)


def _first_orientation(stream: VideoStream, packet: "Packet[VideoStream] | None") -> Orientation | None:
    """Return how the pictures of a packet, or those that the decoder kept back, are shown; None if there are none."""
    try:
        return next((orientation_of(frame) for frame in stream.decode(packet)), None)
    except av.FFmpegError:  # a damaged picture: whoever wants it is told
        return None


@dataclass(frozen=True)
class VideoFrames:
    """The pictures of a video file in order; one decoded picture is held at a time. A `datamodules.clip.FrameSource`.

    Args:
        path: The video file. Opened when the iteration starts, closed when it ends or is abandoned.
        allow_damage: Whether a picture is taken where the decoder had to guess parts of it, from its neighbours, and
            one that cannot be decoded is left out, with a warning at the end: right for hours of a camera, not for what
            is labelled.

    Raises:
        ClipError: While iterating: the file is missing, is no video, breaks off, or a picture is damaged.
    """

    path: Path
    allow_damage: bool = False

    def __iter__(self) -> Iterator[Image]:
        for image, _ in self.timed():
            yield image

    def timed(self) -> Iterator[tuple[Image, float | None]]:
        """Give each picture with its time by the file's own clock, in seconds; None where the file tells none."""
        path = Path(self.path)
        packets = frames = 0
        with _open_video(path) as (container, stream):
            stream.codec_context.thread_count = 1  # more threads hold more frames, and readers run one per core already
            told = tells_times(container)
            for packet in _whole_packets(path, container, stream, allow_damage=self.allow_damage):
                packets += not packet.is_discard
                for frame in self._decode(packet):
                    yield self._picture(frame, frames), _time_of(frame, stream) if told else None
                    frames += 1
            for frame in stream.decode(None):  # what the decoder kept back to reorder
                yield self._picture(frame, frames), _time_of(frame, stream) if told else None
                frames += 1
        if frames != packets and self.allow_damage:  # damaged, or cut where others are needed to decode the first
            logger.warning("%s: decodes to %d frames, has packets of %d", path, frames, packets)
        elif frames != packets:
            raise ClipError(
                path, f"decodes to {frames} frames", f"{packets}, one per packet", "Copy or export this video again."
            )

    def _decode(self, packet: "Packet[VideoStream]") -> list[av.VideoFrame]:
        return decode_what_can_be(packet) if self.allow_damage else packet.decode()

    def _picture(self, frame: av.VideoFrame, number: int) -> Image:
        if frame.is_corrupt and not self.allow_damage:
            raise _no_video(self.path, f"is damaged inside frame {number}")
        return to_rgb(frame)

    def fingerprint(self) -> str:
        """Return the hash of the file's bytes: it changes when the pictures do."""
        return sha256_of(Path(self.path))


def _time_of(frame: av.VideoFrame, stream: VideoStream) -> float | None:
    """Return when a picture is shown, in seconds; PyAV knows no unit of time for those that come without a packet."""
    return None if frame.pts is None or stream.time_base is None else float(frame.pts * stream.time_base)


def decode_what_can_be(packet: "Packet[Any]") -> list[av.VideoFrame]:
    """Decode a packet; one that is damaged gives no picture, and the decoder goes on with the next.

    FFmpeg calls damage by many names: that of what it has not implemented, say, where a header names it by mistake.
    """
    try:
        pictures: list[av.VideoFrame] = packet.decode()
        return pictures
    except (av.ExitError, av.EOFError):  # a time limit, a decoder that is done
        raise
    except av.FFmpegError:
        return []


def tells_times(container: InputContainer) -> bool:
    """Whether a file knows when its pictures are shown: AVI does not, and guesses are out of order with B-frames."""
    return container.format.name != "avi"


def main_video(container: InputContainer) -> VideoStream | None:
    """Return the stream with the largest pictures, the first of several; covers and thumbnails are none.

    None also where FFmpeg does not know what the header names: there is no codec context then.
    """
    films = (one for one in container.streams.video if one.codec_context is not None and not one.disposition & _STILLS)
    return max(films, key=lambda one: one.codec_context.width * one.codec_context.height, default=None)


def since_the_first(timed: Iterable[tuple[Image, float | None]], fps: float) -> Iterator[tuple[float, Image]]:
    """Give the pictures of a file, each with the seconds since the first, which always grow.

    The file's clock is followed. Where it tells nothing, stands still or goes back, a frame comes 1 / `fps` after the
    one before, and the clock counts from there.
    """
    time_s = 0.0
    ahead_s: float | None = None  # of the file's clock to the times that are given
    for number, (image, clock_s) in enumerate(timed):
        regular_s, before_s = number / fps, time_s
        told_s = None if clock_s is None or ahead_s is None else clock_s - ahead_s
        if number:
            time_s = told_s if told_s is not None and told_s > time_s else time_s + 1 / fps
        if clock_s is not None and told_s != time_s:
            ahead_s = clock_s - time_s
        if abs(time_s - regular_s) < _ROUNDING_S and (number == 0 or regular_s > before_s):
            time_s = regular_s
        yield time_s, image


@contextmanager
def _open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the main video stream; FFmpeg's errors inside the block become a ClipError."""
    if not path.is_file():
        raise ClipError(path, "is not there", "a video file", "Check the path, or copy the missing file.")
    try:
        # a file and nothing else: a playlist in it must not open addresses, and a name is never taken for a protocol
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            stream = main_video(container)
            if stream is None:
                raise _no_video(path, "holds no video stream that can be decoded")
            yield container, stream
    except av.FFmpegError as error:
        raise _no_video(path, f"cannot be read ({error.strerror})") from error


def _is_picture(path: Path, container: InputContainer, num_frames: int) -> bool:
    """Whether FFmpeg plays a picture as a video of one frame, at a rate that it makes up."""
    name = container.format.name  # "bmp_pipe", "tiff_pipe"; pictures that move have others
    if name.endswith("_pipe") or path.suffix.lower() in _PICTURES_LIKE_MP4:
        return True
    return name == "gif" and num_frames == 1


def _whole_packets(
    path: Path, container: InputContainer, stream: VideoStream, *, allow_damage: bool
) -> Iterator["Packet[VideoStream]"]:
    """Yield every compressed frame; refuse a file that ends before the last one its index names.

    Where damage is not allowed, refuse also a frame that the container knows to be damaged.
    One that is marked as discarded (before the cut of a video that was cut without encoding it again) is needed to
    decode those after it; FFmpeg does not give its picture.
    """
    size = path.stat().st_size
    index_end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if index_end > size:
        raise _no_video(path, f"has {size} bytes but its index names frames up to byte {index_end}")
    for packet in container.demux(stream):
        if packet.size == 0:  # PyAV's flush packet
            continue
        if packet.is_corrupt and not allow_damage:
            raise _no_video(path, "breaks off inside a frame")
        yield packet


def to_rgb(frame: av.VideoFrame) -> Image:
    """Convert a decoded picture to RGB (H, W, 3), as it is shown."""
    image = frame.to_ndarray(format="rgb24", interpolation=EXACT, threads=1).astype(np.uint8, copy=False)
    return orientation_of(frame).turn(image)


def _no_video(path: Path, found: str) -> ClipError:
    return ClipError(
        path, found, "a whole video", "The file is damaged or its copy was interrupted: copy or export it again."
    )
