import gc
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.stream import Disposition

from datamodules.errors import ClipError
from datamodules.video import VideoFrames, decode_what_can_be, probe_video, since_the_first
from datamodules.video_writer import GrowingVideoWriter, VideoWriter


def _open_files(path) -> int:
    return sum(link.resolve() == path for link in Path("/proc/self/fd").iterdir())


def test_pictures_come_back_in_order_and_nearly_as_written(tmp_path, write_video, number_of, picture):
    frames = list(VideoFrames(write_video(tmp_path / "a.mp4", frames=25)))
    assert [number_of(image) for image in frames] == list(range(25))
    assert frames[3].shape == (48, 64, 3)
    assert frames[3].dtype == np.uint8
    assert np.abs(frames[3].astype(int) - picture(3)).mean() < 4


def test_colours_survive(tmp_path):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :20], image[:, 20:40], image[:, 40:] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    with VideoWriter(tmp_path / "a.mp4", fps=6, width=64, height=48) as video:
        video.write(image)
    (decoded,) = VideoFrames(tmp_path / "a.mp4")
    assert np.abs(decoded[10, [10, 30, 50]].astype(int) - image[10, [10, 30, 50]]).max() < 12


@pytest.mark.parametrize("fps", [6, 25, 30000 / 1001, 18])
def test_a_probe_tells_size_rate_and_length(tmp_path, write_video, fps):
    info = probe_video(write_video(tmp_path / "a.mp4", frames=7, fps=fps))
    assert (info.width, info.height, info.num_frames) == (64, 48, 7)
    assert info.fps == pytest.approx(fps)


def test_frames_are_counted_where_the_header_does_not_tell_and_frames_are_stored_out_of_order(tmp_path, picture):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=6, options={"bf": "3", "b-pyramid": "normal", "g": "20"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(15):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 0  # the header is silent
        packets = [packet.pts for packet in container.demux(video=0) if packet.size]
        assert packets != sorted(packets)  # and the order is not that of showing
    assert probe_video(path).num_frames == 15
    assert len(list(VideoFrames(path))) == 15


def test_a_video_that_was_cut_without_encoding_it_again_is_whole(tmp_path, picture, number_of):
    """It begins with the key frame before the cut, to be decoded and not shown (an edit list)."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream("libx264", rate=6, options={"g": "12", "keyint_min": "12", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number % 10), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        stream = source.streams.video[0]
        begin = int(3 / stream.time_base)  # frame 18; the key frame before it is the 12th
        source.seek(begin, stream=stream)
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.stream, packet.pts, packet.dts = copy, packet.pts - begin, packet.dts - begin
                target.mux(packet)
    assert probe_video(cut).num_frames == 12
    assert [number_of(image) for image in VideoFrames(cut)] == [number % 10 for number in range(18, 30)]


@pytest.mark.parametrize(
    ("name", "size", "disposition"),
    [
        ("cover.mp4", (640, 480), Disposition.attached_pic),
        ("thumbnail.mp4", (32, 24), Disposition.default),
        ("thumbnail.mkv", (32, 24), Disposition.default),
    ],
)
def test_the_video_is_the_largest_that_is_no_cover(tmp_path, picture, number_of, name, size, disposition):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        still = container.add_stream("mjpeg", rate=6)
        (still.width, still.height), still.pix_fmt, still.disposition = size, "yuvj420p", disposition
        video = container.add_stream("libx264", rate=6)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        container.mux(still.encode(av.VideoFrame.from_ndarray(picture(30, *size), format="rgb24")))
        container.mux(still.encode(None))
        for number in range(6):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(video.encode(None))
    info = probe_video(path)
    assert (info.width, info.height, info.num_frames) == (64, 48, 6)
    assert [number_of(image) for image in VideoFrames(path)] == list(range(6))


def test_a_source_starts_again_with_every_iteration(tmp_path, write_video, number_of):
    source = VideoFrames(write_video(tmp_path / "a.mp4"))
    first = iter(source)
    assert number_of(next(first)) == 0
    assert number_of(next(iter(source))) == 0
    assert number_of(next(first)) == 1


def test_an_abandoned_iteration_closes_the_file(tmp_path, write_video):
    path = write_video(tmp_path / "a.mp4")
    frames = iter(VideoFrames(path))
    next(frames)
    assert _open_files(path) == 1
    del frames
    gc.collect()
    assert _open_files(path) == 0


def test_a_clip_is_never_held_in_memory(tmp_path, write_video):
    path = write_video(tmp_path / "a.mp4", frames=60, width=320, height=240)  # 60 pictures are 13.8 MB
    tracemalloc.start()
    try:
        for _ in VideoFrames(path):
            pass
        assert tracemalloc.get_traced_memory()[1] < 1.5e6
    finally:
        tracemalloc.stop()


def test_a_fingerprint_changes_with_the_pictures_only(tmp_path, write_video):
    one, same = write_video(tmp_path / "a.mp4"), write_video(tmp_path / "b.mp4")
    other = write_video(tmp_path / "c.mp4", frames=5)
    assert VideoFrames(one).fingerprint() == VideoFrames(same).fingerprint() != VideoFrames(other).fingerprint()


def test_the_index_of_a_written_mp4_comes_first(tmp_path, write_video):
    data = write_video(tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("act", [probe_video, lambda path: list(VideoFrames(path))], ids=["probe", "read"])
class TestRefused:
    def test_a_missing_file(self, tmp_path, refused, act):
        path = tmp_path / "color.mp4"
        refused(ClipError, lambda: act(path), where=path, found="is not there", expected="a video file")

    @pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
    def test_a_truncated_mp4_with_its_index_in_front(self, tmp_path, write_video, refused, act, keep):
        path = write_video(tmp_path / "color.mp4", frames=30)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
        refused(ClipError, lambda: act(path), where=path, expected="a whole video", fix="copy or export it again")

    def test_a_truncated_mp4_with_its_index_at_the_end(self, tmp_path, write_video, refused, act):
        whole, path = write_video(tmp_path / "whole.mp4", frames=30), tmp_path / "color.mp4"
        with av.open(str(whole)) as source, av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
        data = path.read_bytes()
        assert data.index(b"mdat") < data.index(b"moov")
        path.write_bytes(data[: int(len(data) * 0.8)])
        refused(ClipError, lambda: act(path), where=path, found="cannot be read", fix="copy or export it again")

    def test_a_file_that_is_no_video(self, tmp_path, refused, act):
        path = tmp_path / "color.mp4"
        path.write_text("<html>404 Not Found</html>")
        refused(ClipError, lambda: act(path), where=path, found="cannot be read", expected="a whole video")

    def test_an_empty_file(self, tmp_path, refused, act):
        path = tmp_path / "color.mp4"
        path.touch()
        refused(ClipError, lambda: act(path), where=path, found="cannot be read")

    def test_sound_without_pictures(self, tmp_path, refused, act):
        path = tmp_path / "sound.wav"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
        refused(ClipError, lambda: act(path), where=path, found="no video stream")


def test_a_video_damaged_inside_is_refused_before_its_end(tmp_path, write_video):
    path = write_video(tmp_path / "a.mp4", frames=40)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 200
    data[start : len(data) - 50] = bytes(len(data) - 50 - start)
    path.write_bytes(data)
    with pytest.raises(ClipError):
        list(VideoFrames(path))


@pytest.mark.parametrize("kind", [av.InvalidDataError, av.ArgumentError, av.PatchWelcomeError])
def test_damage_has_many_names_and_a_decoders_end_is_none(kind):
    """FFmpeg's answers to HEVC and MPEG-4 packets of which a byte was changed."""

    def packet(error):
        def decode():
            raise error(1, "damaged")

        return SimpleNamespace(decode=decode)

    assert decode_what_can_be(packet(kind)) == []
    with pytest.raises(av.EOFError):
        decode_what_can_be(packet(av.EOFError))


def test_times_grow_where_pictures_come_in_a_bunch():
    """A recorder's clock, whose third picture comes within a millisecond of the even rate and of the second."""
    times = [time for time, _ in since_the_first(((None, clock) for clock in (0.0, 0.0805, 0.0809, 0.12)), 25.0)]
    assert times == sorted(set(times))
    assert times[0] == 0
    assert times[-1] == 0.12


@pytest.mark.parametrize(("place", "frame"), [(4000, 0), (16000, 1)])  # bytes: pictures have 13,694 and 10,628
def test_a_damaged_picture_is_named_and_never_guessed_unless_asked_for(tmp_path, refused, place, frame):
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (6, 96, 160, 3), dtype=np.uint8)
    with VideoWriter(path, fps=6, width=160, height=96) as video:
        for picture in noise:
            video.write(picture)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + place
    data[start : start + 400] = b"\xff" * 400
    path.write_bytes(data)
    refused(ClipError, lambda: list(VideoFrames(path)), where=path, found=f"is damaged inside frame {frame}")
    assert len(list(VideoFrames(path, allow_damage=True))) == 6


class TestWriter:
    def test_nothing_is_left_of_a_video_that_ends_in_an_error(self, tmp_path, picture):
        def write():
            with VideoWriter(tmp_path / "a.mp4", fps=6, width=64, height=48) as video:
                video.write(picture(0))
                raise KeyError

        with pytest.raises(KeyError):
            write()
        assert list(tmp_path.iterdir()) == []

    def test_an_existing_video_stays_until_the_new_one_is_whole(self, tmp_path, write_video, picture):
        path = write_video(tmp_path / "a.mp4", frames=3)
        with VideoWriter(path, fps=6, width=64, height=48) as video:
            video.write(picture(0))
            assert probe_video(path).num_frames == 3
        assert probe_video(path).num_frames == 1

    @pytest.mark.parametrize("size", [(63, 48), (64, 47), (0, 48)])
    def test_odd_sizes_are_refused(self, tmp_path, refused, size):
        width, height = size
        path = tmp_path / "a.mp4"
        error = refused(
            ClipError,
            lambda: VideoWriter(path, fps=6, width=width, height=height),
            where=path,
            expected="an even, positive width and height",
        )
        assert f"{width}x{height}" in error.found
        assert not path.exists()

    @pytest.mark.parametrize("image", [np.zeros((64, 48, 3), np.uint8), np.zeros((48, 64, 3), np.float32)])
    def test_a_picture_of_another_form_is_refused(self, tmp_path, image):
        with VideoWriter(tmp_path / "a.mp4", fps=6, width=64, height=48) as video:
            with pytest.raises(ValueError, match=r"takes uint8 \(48, 64, 3\)"):
                video.write(image)
            video.write(np.zeros((48, 64, 3), np.uint8))


class TestGrowing:
    def test_what_was_written_can_be_read_while_the_file_is_open(self, tmp_path, picture, number_of):
        path = tmp_path / "a.mp4"
        with GrowingVideoWriter(path, fps=6, width=64, height=48) as video:
            for number in range(20):
                video.write(picture(number), number / 6)
                copy = tmp_path / "copy.mp4"  # what a kill would leave
                copy.write_bytes(path.read_bytes())
                if number > 0:
                    assert [number_of(image) for image in VideoFrames(copy)] == list(range(number))
        assert [number_of(image) for image in VideoFrames(path)] == list(range(20))
        assert probe_video(path).fps == pytest.approx(6, rel=0.02)
        assert b"mfra" not in path.read_bytes()  # an index of all fragments, held in memory until the end

    def test_frames_are_shown_when_they_came_also_after_a_pause_and_a_clock_that_went_back(self, tmp_path, picture):
        path = tmp_path / "a.mp4"
        with GrowingVideoWriter(path, fps=6, width=64, height=48) as video:
            for number, timestamp_s in enumerate((0.0, 0.5, 100.0, 99.0, 101.0)):
                video.write(picture(number), timestamp_s)
        with av.open(str(path)) as container:
            times = [float(frame.time) for frame in container.decode(video=0)]
        assert times == pytest.approx([0, 0.5, 100, 100.001, 101])

    @pytest.mark.parametrize(("pause_s", "shown_s"), [(86_400, 86_400), (86_400 * 60, 86_400 * 24)])
    def test_frames_keep_their_distance_after_a_pause_of_days(self, tmp_path, picture, pause_s, shown_s):
        path = tmp_path / "a.mp4"
        with GrowingVideoWriter(path, fps=6, width=64, height=48) as video:
            for number, timestamp_s in enumerate((0.0, pause_s, pause_s + 0.5, pause_s + 1.5)):
                video.write(picture(number), timestamp_s)
        with av.open(str(path)) as container:
            times = [float(frame.time) for frame in container.decode(video=0)]
        assert times == pytest.approx([0, shown_s, shown_s + 0.5, shown_s + 1.5])

    def test_it_is_whole_also_after_an_error(self, tmp_path, picture):
        def write():
            with GrowingVideoWriter(tmp_path / "a.mp4", fps=6, width=64, height=48) as video:
                video.write(picture(0), 0)
                raise KeyError

        with pytest.raises(KeyError):
            write()
        assert probe_video(tmp_path / "a.mp4").num_frames == 1

    def test_a_picture_of_another_form_is_refused(self, tmp_path):
        with GrowingVideoWriter(tmp_path / "a.mp4", fps=6, width=64, height=48) as video:
            with pytest.raises(ValueError, match=r"takes uint8 \(48, 64, 3\)"):
                video.write(np.zeros((64, 48, 3), np.uint8), 0)
            video.write(np.zeros((48, 64, 3), np.uint8), 0)
