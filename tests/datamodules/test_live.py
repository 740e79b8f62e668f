"""Cameras, played by servers of this machine: one that speaks HTTP and one that speaks RTSP."""

import contextlib
import io
import itertools
import logging
import re
import socket
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from datamodules import live
from datamodules.errors import ClipError
from datamodules.live import LiveStream

FRAMES = 12


def encoded(picture, target, form: str, frames: int = FRAMES, codec: str = "libx264", **options: str) -> None:
    """Encode numbered pictures into an open file or an address; every picture can be decoded alone."""
    with av.open(target, "w", format=form, options=options) as container:
        settings = {"tune": "zerolatency", "g": "1"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=25, options=settings)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p" if codec == "libx264" else "yuvj420p"
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def http_camera(picture):
    """Start a camera that sends its clip slowly to so many callers and then turns everybody away; gives its address.

    A `silent` one goes on to answer, but only says what it would send, and hangs up.
    """
    buffer = io.BytesIO()
    encoded(picture, buffer, "mpegts")
    data = buffer.getvalue()
    servers = []

    def start(callers: int, silent: bool = False) -> str:
        left = [callers]

        class Camera(BaseHTTPRequestHandler):
            def do_GET(self):
                if left[0] == 0 and not silent:
                    self.send_error(503)
                    return
                sent = data if left[0] else 10 * data[: 3 * 188]  # a transport stream begins with packets of tables
                left[0] = max(left[0] - 1, 0)
                self.send_response(200)
                self.end_headers()  # no length: it goes on until it breaks off
                for begin in range(0, len(sent), 1880):
                    self.wfile.write(sent[begin : begin + 1880])
                    time.sleep(0.005)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://farmer:secret@127.0.0.1:{server.server_port}/pen"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def as_sent(picture, form: str, frames: int = FRAMES, codec: str = "libx264", **options: str) -> bytes:
    """Encode numbered pictures as a camera does, which cannot go back to write a length."""

    class Sink(io.RawIOBase):
        def __init__(self):
            self.parts = []

        def writable(self):
            return True

        def write(self, part):
            self.parts.append(bytes(part))
            return len(part)

    sink = Sink()
    encoded(picture, sink, form, frames, codec, **options)
    return b"".join(sink.parts)


@contextlib.contextmanager
def http_server(answers: list[bytes], length: bool, kind: str = "video/x", sent: float = 1.0):
    """Send one answer to each caller, with its `length` or in chunks, and nothing to those that come later.

    Only the share `sent` of each comes.

    Gives:
        The address, and a list that grows with each call.
    """
    calls = []

    class Server(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            calls.append(self.path)
            if len(calls) > len(answers):
                self.send_error(503)
                return
            data = answers[len(calls) - 1]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            name, value = ("Content-Length", str(len(data))) if length else ("Transfer-Encoding", "chunked")
            self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(OSError):
                for begin in range(0, round(sent * len(data)), 1880):
                    part = data[begin : begin + 1880]
                    self.wfile.write(part if length else b"%x\r\n%b\r\n" % (len(part), part))
                    time.sleep(0.002)
                self.wfile.write(b"" if length else b"0\r\n\r\n")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/pen", calls
        server.shutdown()


FRAGMENTS = {"movflags": "frag_every_frame+empty_moov+default_base_moof"}


@pytest.fixture(params=[""])
def rtsp_camera(picture, request):
    """Start a camera that speaks RTSP with its pictures inside the same connection; gives its address.

    Its parameter is a line about its range, as it tells it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.2)
        encoded(picture, f"rtp://127.0.0.1:{receiver.getsockname()[1]}", "rtp")
        packets = []
        while True:
            try:
                packets.append(receiver.recv(65536))
            except TimeoutError:
                break

    class Camera(socketserver.StreamRequestHandler):
        def handle(self):
            while line := self.rfile.readline().decode():
                method, headers = line.split()[0], {}
                while header := self.rfile.readline().decode().strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                if method == "DESCRIBE":
                    about = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=pen\r\nt=0 0\r\n" + request.param.encode()
                    about += b"m=video 0 RTP/AVP 96\r\n"
                    about += b"a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:trackID=0\r\n"
                    self.answer(headers, f"Content-Type: application/sdp\r\nContent-Length: {len(about)}", about)
                elif method == "SETUP":
                    self.answer(headers, f"Transport: {headers['transport']}\r\nSession: 7")
                else:
                    self.answer(headers, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\nSession: 7")
                if method == "PLAY":
                    for packet in packets:
                        self.wfile.write(b"$\0" + len(packet).to_bytes(2, "big") + packet)
                    return

        def answer(self, headers, text, body=b""):
            self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\n{text}\r\n\r\n".encode() + body)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Camera) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"rtsp://127.0.0.1:{server.server_address[1]}/pen"
        server.shutdown()


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(live, "_PAUSE_S", (0.01, 0.05))


def until_given_up(source):
    frames = []
    with pytest.raises(ClipError) as caught:
        frames.extend(source.frames())  # keeps what came before the error
    return frames, caught.value


def test_a_camera_that_drops_out_is_reached_for_again_and_given_up_in_the_end(http_camera, number_of, caplog):
    address = http_camera(callers=2)
    with caplog.at_level(logging.WARNING, logger="datamodules.live"):
        frames, error = until_given_up(LiveStream(address, patience_s=0.3))
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert frames[0].timestamp_s == 0
    assert all(later.timestamp_s > earlier.timestamp_s for earlier, later in pairwise(frames))
    numbers = [number_of(frame.image) for frame in frames]
    assert numbers.count(FRAMES - 1) == 2  # the newest picture is never the one that is dropped
    assert sum(later < earlier for earlier, later in pairwise(numbers)) <= 1
    assert "dropped out" in error.found
    assert "within 0 s" in error.expected
    messages = [record.getMessage() for record in caplog.records]
    assert sum("broke off" in message for message in messages) == 2
    assert sum("is back after" in message for message in messages) == 1
    assert "secret" not in str(error) + "".join(messages)


@pytest.mark.parametrize(("form", "options"), [("flv", {}), ("mp4", FRAGMENTS), ("matroska", {"live": "1"})])
def test_a_camera_that_tells_a_duration_is_called_again(picture, form, options, caplog):
    data = as_sent(picture, form, **options)
    with http_server([data, data], length=False) as (address, calls):
        frames, error = until_given_up(LiveStream(address, patience_s=0.3))
    assert "dropped out" in error.found
    assert len(calls) > 2
    assert sum("is back after" in text for text in caplog.messages) == 1
    assert len(frames) >= 2


@pytest.mark.parametrize(
    "rtsp_camera",
    ["a=range:npt=0-0\r\n", "a=range:npt=0.000-0.000\r\n", "a=range:clock=20260101T000000Z-\r\n"],
    indirect=True,
)
def test_an_rtsp_camera_that_tells_since_when_it_runs_is_called_again(rtsp_camera, caplog):
    stream = LiveStream(rtsp_camera).frames()
    for _ in stream:
        if "is back" in caplog.text:
            break
    stream.close()
    assert "is back" in caplog.text


@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_a_recording_whose_server_tells_no_size_is_one_by_its_header(picture, tmp_path, number_of, form):
    encoded(picture, str(tmp_path / "pen"), form)
    with http_server([(tmp_path / "pen").read_bytes()] * 2, length=False) as (address, calls):
        frames = list(itertools.islice(LiveStream(address).frames(), 2 * FRAMES))
    assert [number_of(frame.image) for frame in frames] == list(range(FRAMES))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("form", "options"), [("matroska", {"live": "1"}), ("mpegts", {}), ("flv", {}), ("mp4", FRAGMENTS)]
)
def test_a_file_of_a_known_size_is_given_whole_and_once(picture, number_of, form, options):
    with http_server([as_sent(picture, form, **options)] * 2, length=True) as (address, calls):
        seen = []
        for frame in LiveStream(address, patience_s=0).frames():
            time.sleep(0.02)
            seen.append((number_of(frame.image), round(frame.timestamp_s, 3)))
    assert seen == [(number, 0.04 * number) for number in range(FRAMES)]
    assert len(calls) == 1


def test_a_file_of_a_known_size_that_breaks_off_is_an_error(picture):
    with http_server([as_sent(picture, "mpegts")] * 2, length=True, sent=0.6) as (address, calls):
        frames, error = until_given_up(LiveStream(address, patience_s=0.3))
    assert 0 < len(frames) < FRAMES
    assert "breaks off" in error.found
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("form", "kind"), [("mpjpeg", "multipart/x-mixed-replace;boundary=ffmpeg"), ("mjpeg", "image/jpeg")]
)
def test_a_camera_of_jpeg_pictures_may_tell_a_size(picture, form, kind):
    data = as_sent(picture, form, 1 if form == "mjpeg" else FRAMES, codec="mjpeg")
    with http_server([data, data], length=True, kind=kind) as (address, calls):
        _, error = until_given_up(LiveStream(address, patience_s=0.3))
    assert "dropped out" in error.found
    assert len(calls) > 2


@contextlib.contextmanager
def jpeg_camera(*pauses_s: float):
    """Send a picture before each pause, by HTTP, then nothing for a while; give the address."""
    sent = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    part = b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(sent), sent)
    over = threading.Event()

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=x")
            self.end_headers()
            with contextlib.suppress(OSError):
                for pause_s in pauses_s:
                    self.wfile.write(part)
                    over.wait(pause_s)
                over.wait(5)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/pen"
        over.set()
        server.shutdown()


def test_a_camera_of_a_picture_every_twelve_seconds_is_none_that_drops_out(caplog):
    with jpeg_camera(0.5, 0.5, 12, 0) as address:
        stream = LiveStream(address, patience_s=0).frames()
        while next(stream).timestamp_s < 10:
            pass
        stream.close()
    assert caplog.messages == []


def test_a_camera_that_sends_nothing_more_is_told_so(caplog, monkeypatch):
    monkeypatch.setattr(live, "_SILENCE_S", 0.6)
    with jpeg_camera(0.1, 0.1, 0.1, 0.1) as address:
        frames, _ = until_given_up(LiveStream(address, patience_s=0))
    assert frames
    assert "the stream broke off (no data for 1 s)" in caplog.text


def test_a_camera_that_answers_without_a_picture_is_told_so(monkeypatch, refused):
    monkeypatch.setattr(live, "_SILENCE_S", 0.6)
    with jpeg_camera() as address:
        stream = LiveStream(address)
        refused(ClipError, lambda: next(stream.frames()), found="cannot be opened (no picture for 1 s)")


def test_fragments_of_many_pictures_are_given_as_far_apart_as_they_were_taken(picture, number_of):
    data = as_sent(picture, "mp4", 30, movflags="empty_moov+default_base_moof", frag_duration="400000")
    with http_server([data], length=False) as (address, _):
        stream = LiveStream(address, patience_s=0).frames()
        frames = list(itertools.islice(stream, FRAMES))
        stream.close()
    numbers = [number_of(frame.image) for frame in frames]
    assert numbers[-1] < 1.5 * FRAMES
    for frame, number in zip(frames, numbers, strict=True):
        assert frame.timestamp_s >= 0.039 * (number - numbers[0])


@pytest.mark.parametrize("name", ["pen", "pen.m3u8"])
def test_pictures_that_come_at_once_are_given_as_far_apart_as_they_were_taken(picture, number_of, name):
    buffer = io.BytesIO()
    encoded(picture, buffer, "mpegts", frames=30)  # of fewer FFmpeg waits for more before it opens a playlist
    hung_up = threading.Event()

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            if self.path.endswith(".m3u8"):
                self.wfile.write(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.2,\npen.ts\n")
                return
            self.wfile.write(buffer.getvalue())
            if name == "pen":
                hung_up.wait(3)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stream = LiveStream(f"http://127.0.0.1:{server.server_port}/{name}").frames()
        frames = list(itertools.islice(stream, FRAMES))
        hung_up.set()
        stream.close()
        server.shutdown()
    numbers = [number_of(frame.image) for frame in frames]
    assert numbers == sorted(numbers)
    assert numbers[-1] < 1.5 * FRAMES  # a slow taker may miss some, but not the rest of the burst
    for frame, number in zip(frames, numbers, strict=True):
        assert frame.timestamp_s >= 0.039 * (number - numbers[0])


@pytest.mark.parametrize("callers", [0, 1])
def test_a_camera_that_answers_but_gives_no_frame_is_given_up(http_camera, caplog, callers):
    with caplog.at_level(logging.WARNING, logger="datamodules.live"):
        frames, error = until_given_up(LiveStream(http_camera(callers, silent=True), patience_s=0.3))
    assert bool(frames) == bool(callers)
    assert "dropped out" in error.found
    assert [("broke off" in text, "is back" in text) for text in caplog.messages] == [(True, False)]


def test_a_camera_that_sends_only_sound_is_lost(picture, monkeypatch, caplog):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency", "g": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("mp2", rate=48000, layout="mono")
        for number in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        for number in range(FRAMES * 2):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
            silence.sample_rate, silence.pts = 48000, 1152 * number
            container.mux(sound.encode(silence))
        container.mux(stream.encode(None))
    data = buffer.getvalue()
    packets = [data[begin : begin + 188] for begin in range(0, len(data), 188)]
    only_sound = b"".join(one for one in packets if one[1] & 0x1F == 1 and one[2] == 1)  # of the second stream, 0x101

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)
            until = time.monotonic() + 3  # then it ends by itself, so that this test does
            with contextlib.suppress(OSError):
                while time.monotonic() < until:
                    self.wfile.write(only_sound)
                    time.sleep(0.02)

        def log_message(self, *_):
            pass

    monkeypatch.setattr(live, "_SILENCE_S", 0.4)
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stream = LiveStream(f"http://127.0.0.1:{server.server_port}/pen").frames()
        next(stream)
        with caplog.at_level(logging.WARNING, logger="datamodules.live"):
            while "is back" not in caplog.text:
                next(stream)
        began = time.monotonic()
        stream.close()
        assert time.monotonic() - began < 1
        server.shutdown()
    assert "broke off (no picture for 0 s)" in caplog.text


class Fake:
    """What PyAV opens of a device: one whose packets are damaged, or one that is stuck in the kernel until `freed`."""

    duration = None
    format = SimpleNamespace(name="v4l2")

    def __init__(self, freed: threading.Event | None) -> None:
        self.freed = freed
        self.closed = threading.Event()
        size = SimpleNamespace(width=2, height=2)
        video = SimpleNamespace(index=0, average_rate=10, codec_context=size, disposition=0)
        self.streams = SimpleNamespace(video=[video])

    def demux(self):
        if self.freed is not None:
            self.freed.wait(5)
            return
        for _ in range(500):
            time.sleep(0.01)
            yield self.packet()

    def packet(self):
        return SimpleNamespace(stream=self.streams.video[0], decode=self.decode)

    def decode(self):
        raise av.InvalidDataError(1, "damaged")

    def close(self):
        self.closed.set()


def test_times_of_a_recording_grow_where_it_tells_none_or_its_clock_goes_back(monkeypatch):
    class Recording(Fake):
        duration = 500_000
        times = iter([7.0, 7.1, None, 7.3, 0.0])

        def demux(self):
            yield from [self.packet()] * 5

        def decode(self):
            return [SimpleNamespace(time=next(self.times))]

    monkeypatch.setattr(live.av, "open", lambda *_, **__: Recording(None))
    monkeypatch.setattr(live, "to_rgb", lambda _: np.zeros((2, 2, 3), np.uint8))
    times = [frame.timestamp_s for frame in LiveStream("rtsp://10.0.0.7/archive").frames()]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("stuck", [True, False])
def test_a_device_without_a_picture_is_given_up_and_left_alone_while_it_is_stuck(monkeypatch, stuck):
    freed = threading.Event()
    device = Fake(freed if stuck else None)
    monkeypatch.setattr(live.av, "open", lambda *_, **__: device)
    monkeypatch.setattr(live, "_SILENCE_S", 0.05)
    monkeypatch.setattr(live, "_JOIN_S", 0.1)
    frames, error = until_given_up(LiveStream("/dev/video0", patience_s=0.1))
    assert frames == []
    assert "no picture for 0 s" in error.found
    assert device.closed.is_set() == (not stuck)  # FFmpeg is still inside it
    freed.set()
    assert device.closed.wait(1)


def test_frames_that_come_while_the_taker_is_busy_are_dropped_and_counted(rtsp_camera, number_of, caplog):
    numbers = []
    with caplog.at_level(logging.WARNING, logger="datamodules.live"):
        stream = LiveStream(rtsp_camera).frames()
        for frame in stream:
            if "broke off" in caplog.text:  # the camera hung up after one clip, and was called again
                break
            numbers.append(number_of(frame.image))
            time.sleep(0.2)
        stream.close()
    given, dropped = (int(text) for text in re.findall(r"after (\d+) frames; (\d+) were dropped", caplog.text)[0])
    assert given == len(numbers) < FRAMES
    assert given + dropped == FRAMES
    assert numbers[-1] == FRAMES - 1
    assert "is back" in caplog.text


def test_rtsp_pictures_arrive_whole(rtsp_camera, number_of, picture):
    camera = LiveStream(rtsp_camera)
    stream = camera.frames()
    frame = next(stream)
    stream.close()
    assert not camera.ends
    assert abs(frame.image.astype(int) - picture(number_of(frame.image))).mean() < 6


def test_a_recording_on_a_server_is_given_whole_and_ends(tmp_path, write_video, number_of):
    data = write_video(tmp_path / "a.mp4", frames=5, fps=10).read_bytes()

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stream = LiveStream(f"http://127.0.0.1:{server.server_port}/a.mp4")
        assert not stream.ends
        seen = []
        for frame in stream.frames():
            time.sleep(0.02)
            seen.append((number_of(frame.image), round(frame.timestamp_s, 3)))
        server.shutdown()
    assert seen == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    assert stream.ends, "it is known when it answers"


def test_a_camera_that_does_not_answer_is_refused_without_its_password(refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        address = f"rtsp://farmer:secret@127.0.0.1:{taken.getsockname()[1]}/pen?key=1234"
        error = refused(ClipError, lambda: next(LiveStream(address).frames()), found="cannot be opened")
    assert error.where.endswith("/pen")
    assert "secret" not in str(error)
    assert "1234" not in str(error)
    assert error.__cause__ is None


def test_a_server_that_sends_no_video_is_refused(http_camera, refused):
    refused(ClipError, lambda: next(LiveStream(http_camera(callers=0)).frames()), found="cannot be opened")


def test_a_recording_is_its_largest_video_and_not_the_thumbnail_before_it(picture):
    with io.BytesIO() as file:
        with av.open(file, "w", format="mpegts") as container:
            streams = [container.add_stream("libx264", rate=25, options={"tune": "zerolatency"}) for _ in range(2)]
            for stream, (width, height) in zip(streams, ((32, 24), (64, 48)), strict=True):
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(FRAMES):
                for stream in streams:
                    image = picture(number, stream.width, stream.height)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            for stream in streams:
                container.mux(stream.encode(None))
        data = file.getvalue()
    with http_server([data], length=True) as (address, _):
        frames = list(LiveStream(address).frames())
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * FRAMES


@pytest.mark.parametrize("order", ["picture first", "sound first"])
@pytest.mark.parametrize("form", ["matroska", "mp4"])
def test_a_recording_with_sound_is_given_to_its_last_picture(picture, number_of, tmp_path, form, order):
    """The last pictures are those that a decoder of B-frames holds until it is told that no more come."""
    path = tmp_path / "clip"
    with av.open(str(path), "w", format=form) as container:
        kinds = {"picture first": "va", "sound first": "av"}[order]
        streams = {
            kind: container.add_stream("libx264", rate=25, options={"bf": "2"})
            if kind == "v"
            else container.add_stream("aac", rate=48_000, layout="mono")
            for kind in kinds
        }
        streams["v"].width, streams["v"].height, streams["v"].pix_fmt = 64, 48, "yuv420p"
        for number in range(FRAMES):
            container.mux(streams["v"].encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 48_000, 1920 * number
            container.mux(streams["a"].encode(sound))
        for stream in streams.values():
            container.mux(stream.encode(None))
    with http_server([path.read_bytes()], length=True) as (address, _):
        assert [number_of(frame.image) for frame in LiveStream(address).frames()] == list(range(FRAMES))


def test_a_recording_that_answers_in_a_cameras_place_is_no_camera_that_is_back(picture, monkeypatch, refused):
    """Such as a proxy's picture for a camera that is away: its clock would be another, and it would end the run."""
    live_stream, clip = as_sent(picture, "mpegts"), as_sent(picture, "matroska")
    calls = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            calls.append(self.path)
            data = live_stream if len(calls) == 1 else clip
            self.send_response(200)
            if len(calls) > 1:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    frames = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stream = LiveStream(f"http://127.0.0.1:{server.server_port}/pen", patience_s=1.0)
        error = refused(ClipError, lambda: frames.extend(stream.frames()), found="a recording answers in its place")
        server.shutdown()
    assert "dropped out" in str(error)
    assert len(calls) > 1


def test_a_recording_that_breaks_off_is_an_error_and_not_begun_anew(picture, tmp_path):
    path = tmp_path / "clip.mp4"
    encoded(picture, str(path), "mp4", movflags="faststart")
    data = path.read_bytes()

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) * 2 // 3])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    given = []
    try:
        with pytest.raises(ClipError, match=r"clip\.mp4: breaks off after \d+ frames"):
            given.extend(
                frame.index for frame in LiveStream(f"http://127.0.0.1:{server.server_port}/clip.mp4").frames()
            )
    finally:
        server.shutdown()
        server.server_close()
    assert given == list(range(len(given)))
    assert len(given) < FRAMES
