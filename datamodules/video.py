"""Video files in and out: one sequential decoder for every reader; an atomic encoder, and one that writes as it goes.

PyAV (https://pyav.basswood-io.com) and not torchcodec: its wheels bundle FFmpeg for x86 and aarch64, so that nothing
has to match a system's FFmpeg or a torch release, and it encodes too. Not OpenCV's reader: it ends without a word
where a file is damaged.

Frames are counted by demuxing, never taken from the header: headers lie, after an interrupted recording above all.
A rotation flag in the container is not applied; annotations are made on the stored pixels.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from datamodules.clip import Image
from datamodules.errors import ClipError
from datamodules.files import atomic_path, sha256_of

# ITU-R BT.601, video range: what FFmpeg converts to by default, written into the file so that every player agrees.
BT601 = 6
VIDEO_RANGE = 1
# By default libswscale rounds as the CPU's vector units like it. Interpolation concerns colour: nothing is resized.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# With x264's macroblock tree up to one in seven encodings of the same small pictures differed, without it none of 200.
REPRODUCIBLE = {"x264-params": "mbtree=0"}
_ROUNDING_S = 1e-3  # Matroska's clock, the coarsest that is usual: a time so near to an even rate is that of the rate
_TICKS = 1000  # per second: an mp4 tells how long a picture is shown in at most 2^31 - 1 of them, 24.8 days
_LONGEST = 24 * 24 * 3600 * _TICKS  # a longer pause is shortened to that

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Args:
        width: Pixels.
        height: Pixels.
        fps: Frames per second, on average over the file.
        num_frames: Pictures that decoding will give.
    """

    width: int
    height: int
    fps: float
    num_frames: int


def probe_video(path: str | Path, *, allow_damage: bool = False) -> VideoInfo:
    """Read a video's size and rate and count its frames without decoding them.

    Args:
        path: The video file.
        allow_damage: Whether frames may be damaged, as where packets of a transport stream were lost: a warning then.

    Raises:
        ClipError: The file is missing, is no video, or ends before its last frame.
    """
    path = Path(path)
    num_frames = damaged = 0
    with _open_video(path) as (container, stream):
        for packet in _whole_packets(path, container, stream, allow_damage=allow_damage):
            num_frames += not packet.is_discard
            damaged += packet.is_corrupt
        if damaged:
            logger.warning("%s: %d of %d frames are damaged; what is missing is guessed", path, damaged, num_frames)
        rate = stream.average_rate or stream.guessed_rate
        if num_frames == 0 or rate is None:
            raise _no_video(path, "holds no frames")
        return VideoInfo(stream.codec_context.width, stream.codec_context.height, float(rate), num_frames)


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
        if (
            frames != packets and self.allow_damage
        ):  # cut where others are needed to decode what comes first, or damaged
            logger.warning("%s: decodes to %d frames, has packets of %d", path, frames, packets)
        elif frames != packets:
            raise ClipError(
                path, f"decodes to {frames} frames", f"{packets}, one per packet", "Copy or export this video again."
            )

    def _decode(self, packet: "Packet[VideoStream]") -> list[av.VideoFrame]:
        try:
            return packet.decode()
        except av.InvalidDataError:
            if self.allow_damage:
                return []
            raise

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


def tells_times(container: InputContainer) -> bool:
    """Whether a file knows when its pictures are shown: AVI does not, and guesses are out of order with B-frames."""
    return container.format.name != "avi"


def since_the_first(timed: Iterable[tuple[Image, float | None]], fps: float) -> Iterator[tuple[float, Image]]:
    """Give the pictures of a file, each with the seconds since the first, which always grow.

    The file's clock is followed. Where it tells nothing, stands still or goes back, a frame comes 1 / `fps` after the
    one before, and the clock counts from there.
    """
    time_s = 0.0
    ahead_s: float | None = None  # of the file's clock to the times that are given
    for number, (image, clock_s) in enumerate(timed):
        regular_s = number / fps
        told_s = None if clock_s is None or ahead_s is None else clock_s - ahead_s
        if number:
            time_s = told_s if told_s is not None and told_s > time_s else time_s + 1 / fps
        if clock_s is not None and told_s != time_s:
            ahead_s = clock_s - time_s
        if abs(time_s - regular_s) < _ROUNDING_S:
            time_s = regular_s
        yield time_s, image


class VideoWriter:
    """Encode RGB pictures as H.264 in an mp4 that exists only when it is whole.

    A context manager: the file appears when the block ends, and nothing is left behind if it ends in an error.
    The same pictures and arguments give the same bytes with the same FFmpeg.

    Args:
        path: The mp4 to write; an existing one is replaced at the end.
        fps: Frames per second.
        width: Pixels, even: the format stores colour at half resolution.
        height: Pixels, even.
        crf: Constant rate factor of x264, 0 (lossless) to 51; 18 is visually lossless, 23 is x264's default.

    Raises:
        ClipError: The size is odd or not positive.
        ValueError: From `write`, when a picture is not (height, width, 3) uint8.
    """

    def __init__(self, path: str | Path, *, fps: float, width: int, height: int, crf: int = 20) -> None:
        self.path = Path(path)
        self.shape = (height, width, 3)
        if width % 2 or height % 2 or min(width, height) < 2:
            raise ClipError(
                self.path,
                f"is to be written with {width}x{height} pixels",
                "an even, positive width and height",
                "Choose a frame size divisible by two: H.264 stores colour at half resolution.",
            )
        self._rate = Fraction(fps).limit_denominator(1001)  # 1001: NTSC rates such as 30000/1001 stay exact
        self._crf = crf
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            # faststart puts the index first, so that a browser can play the file while it loads.
            self._container = stack.enter_context(
                av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"})
            )
            self._stream = _add_h264(self._container, self._rate, self.shape, {"crf": str(self._crf), **REPRODUCIBLE})
            self._stack = stack.pop_all()
        return self

    def write(self, image: Image) -> None:
        """Append one RGB picture of shape (height, width, 3), uint8."""
        self._container.mux(self._stream.encode(_to_encode(image, self.shape, self.path)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:  # close the container, then rename; delete if that fails
            self._container.mux(self._stream.encode(None))


class GrowingVideoWriter:
    """Encode RGB pictures as H.264 in an mp4 that can be played while it grows, and is whole whenever it ends.

    Every picture is a fragment of its own (ISO/IEC 14496-12, movie fragments), handed to the system when the next one
    comes: a process that is killed loses one picture. A context manager; the file stays if the block ends in an error.

    Args:
        path: The mp4 to write; an existing one is replaced at once.
        fps: About how many frames per second there will be; their times are those given to `write`, in milliseconds.
        width: Pixels, even.
        height: Pixels, even.
        crf: Constant rate factor of x264.

    Raises:
        ValueError: From `write`, when a picture is not (height, width, 3) uint8.
    """

    def __init__(self, path: str | Path, *, fps: float, width: int, height: int, crf: int = 23) -> None:
        self.path = Path(path)
        self.shape = (height, width, 3)
        self._last_tick = -1
        self._left_out = 0  # ticks, of pauses that were too long
        # skip_trailer: no index of all fragments at the end, for which FFmpeg would remember every one of them
        flags = "+frag_every_frame+empty_moov+default_base_moof+skip_trailer"
        options = {"movflags": flags, "flush_packets": "1", "video_track_timescale": str(_TICKS)}
        self._container = av.open(str(path), "w", format="mp4", options=options)
        # zerolatency: the encoder keeps nothing back, so that what was written is in the file
        options = {"crf": str(crf), "tune": "zerolatency", "g": str(max(1, round(2 * fps)))}
        self._stream = _add_h264(self._container, Fraction(fps).limit_denominator(1001), self.shape, options)
        self._stream.codec_context.time_base = Fraction(1, _TICKS)

    def __enter__(self) -> Self:
        return self

    def write(self, image: Image, timestamp_s: float) -> None:
        """Append one RGB picture of shape (height, width, 3), uint8, that is shown from `timestamp_s` on."""
        frame = _to_encode(image, self.shape, self.path)
        tick = max(self._last_tick + 1, round(timestamp_s * _TICKS) - self._left_out)
        self._left_out += max(0, tick - self._last_tick - _LONGEST)
        self._last_tick = min(tick, self._last_tick + _LONGEST)
        frame.pts, frame.time_base = self._last_tick, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


def _add_h264(
    container: OutputContainer, rate: Fraction, shape: tuple[int, int, int], options: dict[str, str]
) -> VideoStream:
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width, _ = shape
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.thread_count = 1  # x264's output depends on its thread count
    context.colorspace = BT601
    context.color_range = VIDEO_RANGE
    return stream


def _to_encode(image: Image, shape: tuple[int, int, int], path: Path) -> av.VideoFrame:
    if image.shape != shape or image.dtype != "uint8":
        raise ValueError(f"picture is {image.dtype} {image.shape}, {path} takes uint8 {shape}")
    picture = av.VideoFrame.from_ndarray(image, format="rgb24")
    return picture.reformat(format="yuv420p", interpolation=EXACT, threads=1)


@contextmanager
def _open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the first video stream; FFmpeg's errors inside the block become a ClipError."""
    if not path.is_file():
        raise ClipError(path, "is not there", "a video file", "Check the path, or copy the missing file.")
    try:
        # a file and nothing else: a playlist in it must not open addresses, and a name is never taken for a protocol
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            stream = next(iter(container.streams.video), None)
            if (
                stream is None or stream.codec_context is None
            ):  # no context: the header names one that FFmpeg does not know
                raise _no_video(path, "holds no video stream that can be decoded")
            yield container, stream
    except av.FFmpegError as error:
        raise _no_video(path, f"cannot be read ({error.strerror})") from error


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
    """Convert a decoded picture to RGB (H, W, 3)."""
    return frame.to_ndarray(format="rgb24", interpolation=EXACT, threads=1).astype(np.uint8, copy=False)


def _no_video(path: Path, found: str) -> ClipError:
    return ClipError(
        path, found, "a whole video", "The file is damaged or its copy was interrupted: copy or export it again."
    )
