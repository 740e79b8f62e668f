import logging
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from datamodules.errors import ClipError
from datamodules.live import LiveStream
from datamodules.sources import open_source
from datamodules.video import VideoFrames, probe_video
from datamodules.video_writer import GrowingVideoWriter


@pytest.fixture
def write_pictures(picture):
    def write(folder, names):
        folder.mkdir(exist_ok=True)
        for number, name in enumerate(names):
            cv2.imwrite(str(folder / name), picture(number))
        return folder

    return write


def seen(source, number_of):
    return [(frame.index, number_of(frame.image), round(frame.timestamp_s, 3)) for frame in source.frames()]


def test_a_video_gives_its_frames_at_its_own_rate(tmp_path, write_video, number_of):
    source = open_source(str(write_video(tmp_path / "a.mp4", frames=3, fps=10)), picture_fps=2)
    assert (source.fps, source.num_frames) == (10, 3)
    assert seen(source, number_of) == [(0, 0, 0.0), (1, 1, 0.1), (2, 2, 0.2)]


def test_a_folder_of_pictures_is_read_in_the_order_of_its_numbers(tmp_path, write_pictures, number_of):
    folder = write_pictures(tmp_path / "pictures", ["frame9.png", "frame10.png", "frame11.jpg"])
    (folder / "notes.txt").write_text("ten pigs")
    (folder / "._frame9.png").write_bytes(b"as a Mac leaves it")
    (folder / "frame1.png").mkdir()
    source = open_source(str(folder), picture_fps=2)
    assert (source.fps, source.num_frames) == (2, 3)
    assert seen(source, number_of) == [(0, 0, 0.0), (1, 1, 0.5), (2, 2, 1.0)]


def test_a_pattern_of_videos_is_one_stream_whose_times_go_on(tmp_path, write_video, number_of):
    write_video(tmp_path / "hour10.mp4", frames=2, fps=2)
    write_video(tmp_path / "hour9.mp4", frames=3, fps=6)
    source = open_source(str(tmp_path / "hour*.mp4"))
    assert (source.fps, source.num_frames) == (6, 5)
    assert seen(source, number_of) == [(0, 0, 0.0), (1, 1, 0.167), (2, 2, 0.333), (3, 0, 0.5), (4, 1, 1.0)]


def test_a_pause_between_files_is_one_in_their_times(tmp_path, write_video, number_of):
    for name in ("clip1.mp4", "clip2.mp4", "clip3.mp4"):
        write_video(tmp_path / name, frames=2, fps=2)
    source = open_source(str(tmp_path / "clip*.mp4"), file_pause_s=3600)
    assert [time_s for _, _, time_s in seen(source, number_of)] == [0, 0.5, 3601, 3601.5, 7202, 7202.5]


def test_a_pause_in_a_recording_is_one_in_its_times_and_in_those_of_the_files_after_it(tmp_path, write_video, picture):
    with GrowingVideoWriter(tmp_path / "hour1.mp4", fps=6, width=64, height=48) as video:
        for number, time_s in enumerate((5.0, 5.2, 605.2, 605.3)):
            video.write(picture(number), time_s)
    write_video(tmp_path / "hour2.mp4", frames=2, fps=6)
    times = [frame.timestamp_s for frame in open_source(str(tmp_path / "hour*.mp4")).frames()]
    assert times[:4] == pytest.approx([0, 0.2, 600.2, 600.3], abs=1e-3)
    assert times[4] > times[3]
    assert times[5] - times[4] == pytest.approx(1 / 6)


@pytest.mark.parametrize("name", ["hour1.mp4", "hour1.mkv", "hour1.ts"])
def test_pictures_that_are_stored_out_of_order_have_their_times_also_at_the_end(tmp_path, picture, name, write_video):
    """The last two come after a pause, and the decoder keeps them back until the file has ended."""
    given = [*(number / 10 for number in range(18)), 4.8, 4.9]
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "3", "b-adapt": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_s in enumerate(given):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    write_video(tmp_path / "hour2.mp4", frames=2, fps=10)
    times = [frame.timestamp_s for frame in open_source(str(tmp_path / "hour*")).frames()]
    assert times[:20] == pytest.approx(given, abs=1e-3)
    assert 0.09 < times[20] - times[19] < 0.3


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(7)])
def test_an_even_rate_gives_even_times_whatever_the_container_rounds_them_to(tmp_path, picture, name, rate):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode(None))
    source = open_source(str(tmp_path / name))
    assert source.fps == pytest.approx(float(rate))
    assert [frame.timestamp_s for frame in source.frames()] == [number / source.fps for number in range(40)]


@pytest.mark.parametrize(
    ("clock_s", "times_s"),
    [
        ([None, None, None], [0, 0.1, 0.2]),
        ([7.0, 7.1, None, 7.3, 9.3], [0, 0.1, 0.2, 0.3, 2.3]),
        ([7.0, 9.0, 0.0, 0.1, 5.1], [0, 2, 2.1, 2.2, 7.2]),  # it began anew
        ([7.0, 7.0, 7.1], [0, 0.1, 0.2]),
    ],
)
def test_times_grow_also_where_a_file_tells_none_or_its_clock_goes_back(
    tmp_path, write_video, monkeypatch, picture, clock_s, times_s
):
    source = open_source(str(write_video(tmp_path / "a.mp4", frames=3, fps=10)))
    monkeypatch.setattr(VideoFrames, "timed", lambda _: ((picture(0), time_s) for time_s in clock_s))
    assert [frame.timestamp_s for frame in source.frames()] == pytest.approx(times_s)


def test_a_recording_that_lost_a_packet_is_read_with_a_warning(tmp_path, refused, caplog):
    path = tmp_path / "hour.ts"
    noise = np.random.default_rng(0).integers(0, 256, (12, 96, 160, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=6, options={"g": "4"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for picture in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    lost = 200 * 188  # transport streams consist of packets of 188 bytes; this one is of the fourth picture
    path.write_bytes(data[:lost] + data[lost + 188 :])
    refused(ClipError, lambda: probe_video(path), where=path, found="breaks off inside a frame")
    with caplog.at_level(logging.WARNING, logger="datamodules.video"):
        source = open_source(str(path))
    assert source.num_frames == 12
    assert "1 of 12 frames are damaged" in caplog.text
    assert len(list(source.frames())) == 12


def test_a_recording_cut_between_key_frames_is_read_from_its_first_whole_picture(tmp_path, picture, caplog, refused):
    whole, path = tmp_path / "whole.ts", tmp_path / "cut.ts"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream("libx264", rate=6, options={"g": "8", "keyint_min": "8", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number >= 5:
                packet.stream = copy
                target.mux(packet)
    refused(ClipError, lambda: list(VideoFrames(path)), where=path, expected="15, one per packet")
    with caplog.at_level(logging.WARNING, logger="datamodules.video"):
        assert len(list(open_source(str(path)).frames())) == 12
    assert [message.split(": ")[1] for message in caplog.messages] == ["decodes to 12 frames, has packets of 15"]


def test_a_pattern_of_pictures_and_a_single_picture(tmp_path, write_pictures, number_of):
    folder = write_pictures(tmp_path / "pictures", ["a1.jpg", "a2.jpg", "b.jpg"])
    assert seen(open_source(str(folder / "a*.jpg"), picture_fps=1), number_of) == [(0, 0, 0.0), (1, 1, 1.0)]
    assert open_source(str(folder / "b.jpg")).num_frames == 1


@pytest.mark.parametrize(("form", "codec", "pixels"), [("gif", "gif", "rgb8"), ("mjpeg", "mjpeg", "yuvj420p")])
def test_pictures_that_move_are_a_video(tmp_path, picture, form, codec, pixels):
    path = tmp_path / f"a.{form}"
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode(None))
    assert open_source(str(path)).num_frames == 3


def test_a_file_whose_name_looks_like_an_address_is_a_file(tmp_path, write_video, monkeypatch):
    write_video(tmp_path / "pipe:0.mp4", frames=2)
    write_video(tmp_path / "concat:a|b.mp4", frames=1)
    write_video(tmp_path / "-i.mp4", frames=1)
    monkeypatch.chdir(tmp_path)
    assert len(list(open_source("pipe:0.mp4").frames())) == 2
    assert len(list(open_source("concat:a|b.mp4").frames())) == 1
    assert len(list(open_source("-i.mp4").frames())) == 1


def test_an_address_is_a_camera_and_nothing_is_opened_yet():
    source = open_source("rtsp://farmer:secret@10.0.0.7/pen?token=abc", patience_s=5)
    assert source == LiveStream("rtsp://farmer:secret@10.0.0.7/pen?token=abc", 5)
    assert source.name == "rtsp://10.0.0.7/pen"
    assert (source.fps, source.num_frames) == (None, None)


class TestRefused:
    @pytest.mark.parametrize("name", ["pipe:0", "pipe:", "fd:0", "file:///etc/hostname", "concat:a|b", "subfile,,a"])
    def test_addresses_that_are_no_camera(self, refused, name):
        refused(ClipError, lambda: open_source(name), where=name, found="is an address that is not opened")

    @pytest.mark.parametrize("name", ["ftp://a:geheim@10.0.0.7/pen", "a:geheim@10.0.0.7/pen", "a:geheim@10.0.0.7/*"])
    def test_what_could_be_an_address_without_its_password(self, refused, name):
        error = refused(ClipError, lambda: open_source(name), where="10.0.0.7/")
        assert "geheim" not in str(error)

    def test_what_is_not_there(self, tmp_path, refused):
        path = tmp_path / "pen.mp4"
        refused(ClipError, lambda: open_source(str(path)), where=path, found="is not there")
        pattern = tmp_path / "*.mp4"
        refused(ClipError, lambda: open_source(str(pattern)), where=pattern, found="matches no file")

    def test_an_empty_folder_says_how_videos_are_named(self, tmp_path, refused):
        refused(ClipError, lambda: open_source(str(tmp_path)), where=tmp_path, found="no pictures", fix="/*.mp4'")

    def test_a_mixed_pattern(self, tmp_path, write_video, write_pictures, refused):
        write_pictures(tmp_path, ["a.jpg"])
        write_video(tmp_path / "b.mp4")
        pattern = str(tmp_path / "*")
        refused(ClipError, lambda: open_source(pattern), where=pattern, found="a.jpg and b.mp4")

    @pytest.mark.parametrize("name", ["1.bmp", "1.tif", "1.webp", "1.gif", "1.JPE"])
    def test_pictures_of_other_kinds(self, tmp_path, picture, refused, name):
        for path in (tmp_path / "1.gif", tmp_path / "2.gif") if name == "1.gif" else (tmp_path / name,):
            cv2.imwrite(str(path), picture(0))
        for given in (tmp_path / name, tmp_path / f"*{name[1:]}"):
            error = refused(ClipError, lambda given=given: open_source(str(given)), where=name, found="is a picture")
            assert error.expected == "a video, or pictures as .jpg or .png"

    def test_pictures_in_the_container_of_a_video(self, tmp_path, write_video, refused):
        path = write_video(tmp_path / "1.mp4", frames=1).rename(tmp_path / "1.HEIC")
        refused(ClipError, lambda: open_source(str(path)), where=path, found="is a picture")

    def test_a_truncated_video_before_anything_is_decoded(self, tmp_path, write_video, refused):
        path = write_video(tmp_path / "a.mp4", frames=30)
        path.write_bytes(path.read_bytes()[:-200])
        refused(ClipError, lambda: open_source(str(path)), where=path, expected="a whole video")

    def test_a_playlist_that_would_open_an_address(self, tmp_path, refused):
        path = tmp_path / "a.mp4"
        path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
        refused(ClipError, lambda: open_source(str(path)), where=path, expected="a whole video")
