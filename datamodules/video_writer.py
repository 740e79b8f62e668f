"""Video files, written: one encoder whose file appears when it is whole, one whose file can be played as it grows."""

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from datamodules.clip import Image
from datamodules.errors import ClipError
from datamodules.files import atomic_path
from datamodules.video import EXACT

# ITU-R BT.601, video range: what FFmpeg converts to by default, written into the file so that every player agrees.
BT601 = 6
VIDEO_RANGE = 1
# With x264's macroblock tree up to one in seven encodings of the same small pictures differed, without it none of 200.
REPRODUCIBLE = {"x264-params": "mbtree=0"}
_TICKS = 1000  # per second: an mp4 tells how long a picture is shown in at most 2^31 - 1 of them, 24.8 days
_LONGEST = 24 * 24 * 3600 * _TICKS  # a longer pause is shortened to that


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
