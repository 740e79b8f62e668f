"""A camera or stream by its address, as frames with times: it outlives drop-outs and never falls behind.

FFmpeg reads it through PyAV, as it reads files. Only network streams and video devices are opened: no pipes, no local
files by way of an address, no shell. A camera does not wait, so that a thread takes its frames and the newest one is
given; those that came while the taker was busy are dropped and counted.
"""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import InputContainer

from datamodules.addresses import SCHEMES, scheme_of, without_secrets
from datamodules.clip import Frame, Image
from datamodules.errors import ClipError
from datamodules.video import decode_what_can_be, main_video, since_the_first, tells_times, to_rgb

_HTTP = ("http", "https")
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"  # as FFmpeg calls it
_PROTOCOLS = "rtp,srtp,tcp,tls,crypto,httpproxy,hls," + ",".join(SCHEMES)  # what a stream may open in its turn
# Without a picture for so long a camera is gone, whatever else it sends. To open JPEG pictures takes two intervals.
_SILENCE_S = 30.0
_JUMP_S = 10.0  # a clock that jumps so far tells nothing about when to show a picture
_HASTE = 0.995  # a burst is given a little faster than it was taken, or a camera's fast clock would leave us behind
_FPS = 25.0  # of a recording that tells neither its rate nor its pictures' times
_JOIN_S = 2.0  # for a thread to notice that nobody wants its pictures any more; a device may block it in the kernel
_PAUSE_S = (0.5, 30.0)  # between attempts to reach it again: first, longest

logger = logging.getLogger(__name__)


@dataclass
class LiveStream:
    """Frames of a stream or a device in the order of their arrival; the frames' indices count those that were given.

    A stream of known length or size (a recording on a server) is given whole and ends; one that breaks off would begin
    anew, so that it is an error. A camera goes on until the iteration is abandoned, and is reached for again when it
    drops out.

    Args:
        address: ``rtsp://...``, ``http://...`` or the like, or a device such as ``/dev/video0``.
        patience_s: How long to reach for a camera that dropped out, before giving up.

    Attributes:
        ends: Whether it is a recording; known when it has answered, which it has before its first frame.

    Raises:
        ClipError: While iterating: nothing answers at first, a recording breaks off, or the camera did not come back.
    """

    address: str
    patience_s: float = 600.0
    ends: bool = field(default=False, init=False, compare=False)

    @property
    def name(self) -> str:
        """The address without user, password, query and fragment."""
        return without_secrets(self.address)

    @property
    def fps(self) -> float | None:
        """None: frames come when they come."""
        return None

    @property
    def num_frames(self) -> int | None:
        """None: nobody knows."""
        return None

    @property
    def paths(self) -> tuple[Path, ...]:
        """No files."""
        return ()

    def frames(self) -> Iterator[Frame]:
        """Give frames with their times in seconds since the first.

        Times are those of the arrival, of a recording its own, and of segments that come whole (HLS) as far apart as
        the pictures were taken.
        """
        index = dropped = 0
        began: float | None = None
        lost: float | None = None  # since when nothing has come: a camera is back with a frame, not with a connection
        pause = _PAUSE_S[0]
        connection = self._open()
        self.ends = connection.recorded
        while True:
            with connection:
                for arrived, image in connection:
                    if lost is not None:
                        logger.warning("%s: the stream is back after %.1f s", self.name, time.monotonic() - lost)
                        lost, pause = None, _PAUSE_S[0]
                    began = arrived if began is None else began
                    yield Frame(index, arrived - began, image, None)
                    index += 1
            dropped += connection.dropped
            if connection.recorded and connection.error is not None:
                found = f"breaks off after {index} frames ({connection.error})"
                raise ClipError(self.name, found, "a recording to its end", "Copy it here and track the copy.")
            if connection.recorded:
                return
            reason = connection.error or "it ended"
            if lost is None:
                lost = time.monotonic()
                logger.warning(
                    "%s: the stream broke off (%s) after %d frames; %d were dropped so far to keep up",
                    self.name, reason, index, dropped,
                )  # fmt: skip
            connection, pause = self._reopen(lost, pause, reason)

    def _open(self) -> "_Connection":
        try:
            return _Connection(self.address)
        except (av.FFmpegError, OSError) as error:
            raise ClipError(
                self.name,
                f"cannot be opened ({_reason(error)})",
                "a camera or stream that answers",
                "Check address, user and password, and that another player can show it.",
            ) from None  # FFmpeg's own message repeats the address, with the password

    def _reopen(self, lost: float, pause: float, reason: str) -> tuple["_Connection", float]:
        """Reach for a camera that has given nothing since `lost`, for `reason`, until it answers.

        Returns:
            The connection, and how long to wait before the next attempt if that gives no frame.
        """
        while (away := time.monotonic() - lost) <= self.patience_s:
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE_S[1], self.patience_s + 0.1)
            try:
                connection = _Connection(self.address)
            except (av.FFmpegError, OSError) as error:
                reason = _reason(error)
                continue
            if not connection.recorded:
                return connection, pause
            connection.close()  # such as a proxy's picture for a camera that is away
            reason = "a recording answers in its place"
        raise ClipError(
            self.name,
            f"dropped out and was away for {away:.0f} s ({reason})",
            f"it to come back within {self.patience_s:.0f} s",
            "Check the camera, or wait longer with --patience_s.",
        )


def _reason(error: av.FFmpegError | OSError) -> str:
    """Say why nothing could be opened; of our time limit FFmpeg knows no more than that it was asked to stop."""
    return f"no picture for {_SILENCE_S:.0f} s" if isinstance(error, av.ExitError) else str(error.strerror or error)


def _is_recording(address: str, container: InputContainer) -> bool:
    """Whether a stream is known to have an end: its server tells how many bytes it sends, or its header how long it is.

    Cameras tell durations, too: 0 (FLV), since when they run (RTSP), or what has come so far (mp4 in fragments, whose
    header counts no pictures). Those of JPEG pictures tell sizes, too: sham ones, or that of one picture.
    """
    if _has_size(address, container) and "jpeg" not in container.format.name:
        return True
    video = main_video(container)
    told = container.format.name != _MP4 or (video is not None and video.frames > 0)
    return told and (container.duration or 0) > 0


def _has_size(address: str, container: InputContainer) -> bool:
    """Whether a server told how many bytes it will send; of HLS that is the playlist."""
    return scheme_of(address) in _HTTP and container.format.name != "hls" and container.size > 0


class _Connection:
    """One connection: a thread decodes, the iteration takes the newest picture and its time."""

    def __init__(self, address: str) -> None:
        device = Path(address).is_char_device()
        options = {} if device else {"protocol_whitelist": _PROTOCOLS, "rtsp_flags": "prefer_tcp"}
        self._container: InputContainer = av.open(
            address, format="v4l2" if device else None, options=options, timeout=_SILENCE_S
        )
        video = main_video(self._container)
        if video is None:
            self._container.close()
            raise OSError("it has no video")
        self._video = video
        self.recorded = _is_recording(address, self._container)
        self._told = tells_times(self._container)
        self._fps = float(video.average_rate or video.guessed_rate or _FPS)
        # By HTTP whole segments come at once; RTSP, RTMP, SRT and UDP pass on what the camera sends when it sends it.
        self._bursts = scheme_of(address) in _HTTP and self._container.format.name in ("hls", "mpegts", _MP4)
        self._shown: tuple[float, float] | None = None  # when the last picture was given, and its time in the stream
        self.dropped = 0
        self.error: str | None = None
        self._changed = threading.Condition()
        self._newest: tuple[av.VideoFrame, float | None] | None = None
        self._ended = self._abandoned = False
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)

    def close(self) -> None:
        """Hang up; only before the thread was started, which closes it otherwise."""
        self._container.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
        self._thread.join(_JOIN_S)

    def __iter__(self) -> Iterator[tuple[float, Image]]:
        if self.recorded:
            yield from since_the_first(self._taken(), self._fps)
            return
        for image, arrived in self._taken():
            assert arrived is not None
            yield arrived, image

    def _taken(self) -> Iterator[tuple[Image, float | None]]:
        """Give pictures and when they arrived; of a recording its own times, None where it tells none."""
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._newest is not None or self._ended, _SILENCE_S):
                    self.error = f"no picture for {_SILENCE_S:.0f} s"
                taken, self._newest = self._newest, None
                self._changed.notify_all()
            if taken is None:
                return
            yield to_rgb(taken[0]), taken[1]

    def _read(self) -> None:
        """Decode until the stream ends or nobody wants its pictures; then close it, which only this thread may do."""
        video = self._video
        try:
            for packet in self._container.demux():  # all streams: sound alone would keep PyAV from coming back
                if self._abandoned:
                    return
                if packet.stream.index != video.index:  # its own stream_index is 0 in those that empty a decoder
                    continue
                for picture in decode_what_can_be(packet):
                    self._offer(picture, self._due(picture))
        except av.ExitError:  # our time limit: the same as that of `_taken`, but this knows more
            self.error = f"no data for {_SILENCE_S:.0f} s"
        except (av.FFmpegError, OSError) as error:
            self.error = self.error or error.strerror or type(error).__name__
        finally:
            self._container.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _due(self, picture: av.VideoFrame) -> float | None:
        """Hold a picture of a burst until it is its turn, as far after the one before as when they were taken.

        Returns:
            When that is, by the monotonic clock: at once for one that comes late, and where the stream's clock jumps.
            Of a recording the picture's own time, None where it tells none.
        """
        if self.recorded:
            return picture.time if self._told else None
        now = due = time.monotonic()
        if not self._bursts or picture.time is None:
            return now
        if self._shown is not None and 0 < (step := picture.time - self._shown[1]) < _JUMP_S:
            due = max(now, self._shown[0] + _HASTE * step)
            with self._changed:
                self._changed.wait_for(lambda: self._abandoned, due - now)
        self._shown = (due, picture.time)
        return due

    def _offer(self, picture: av.VideoFrame, time_s: float | None) -> None:
        with self._changed:
            if self.recorded:
                self._changed.wait_for(lambda: self._newest is None or self._abandoned)
            self.dropped += self._newest is not None
            self._newest = (picture, time_s)
            self._changed.notify_all()
