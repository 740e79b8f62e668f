"""Videos whose frames come when they come are no clips by number without a word."""

import json
from fractions import Fraction

import av
import pytest

from datamodules.edinburgh import read_edinburgh
from datamodules.errors import AnnotationError
from datamodules.pace import pace_of
from datamodules.video import probe_video

EVEN = [number / 6 for number in range(60)]
PAUSES = [number / 6 + 9 * (number >= 20) + 2 * (number >= 40) for number in range(60)]  # one of 9.2 s, one of 2.2 s


@pytest.fixture
def write_timed(picture):
    """Write a video whose frames are shown at given times, in seconds."""

    def write(path, times_s, codec="libx264"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=6)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            for number, time_s in enumerate(times_s):
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
                frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_probe_tells_how_evenly_frames_come(tmp_path, write_timed, name):
    even = probe_video(write_timed(tmp_path / f"even-{name}", EVEN)).pace
    assert even.even
    assert (even.pauses, even.longest_s) == (0, 0)
    assert even.usual_fps == pytest.approx(6, rel=0.01)
    uneven = probe_video(write_timed(tmp_path / name, PAUSES)).pace
    assert not uneven.even
    assert uneven.pauses == 2
    assert uneven.longest_s == pytest.approx(9.17, abs=0.02)


def test_a_file_that_tells_no_times_tells_no_pace(tmp_path, picture):
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=6)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode(None))
    assert probe_video(tmp_path / "a.avi").pace is None


def test_times_are_compared_in_the_order_of_showing_with_what_the_number_says():
    pace = pace_of([0, 3, 1, 2], fps=1)
    assert (pace.even, pace.away_s, pace.pauses) == (True, 0, 0)
    pace = pace_of([5, 6, 7, 11], fps=1)
    assert (pace.even, pace.away_s, pace.pauses, pace.longest_s, pace.usual_fps) == (False, 3, 1, 4, 1)
    assert str(pace) == "1 pause, the longest of 4.0 s, and a frame is up to 3.0 s from where its number puts it"
    assert pace_of([7.0], fps=6).even
    assert pace_of([0, 0, 0], fps=6).usual_fps == 6


def test_a_frame_that_was_left_out_here_and_there_is_within_the_rounding():
    times = [number / 30 for number in range(300) if number not in (50, 200)]
    assert pace_of(times, fps=297 / times[-1]).even


def test_a_clip_without_labels_is_read_with_a_warning(tmp_path, write_timed, caplog):
    write_timed(tmp_path / "2026_01_01" / "000001" / "color.mp4", EVEN)
    path = write_timed(tmp_path / "2026_01_01" / "000002" / "color.mp4", PAUSES)
    assert [clip.num_frames for clip in read_edinburgh(tmp_path)] == [60, 60]
    (message,) = caplog.messages
    assert message.startswith(f"{path}: its frames come unevenly: 2 pauses, the longest of 9.2 s, and a frame is up to")


def test_labels_of_one_are_refused_by_its_pauses_and_not_by_its_rate(tmp_path, write_timed, entry, refused, caplog):
    path = write_timed(tmp_path / "2026_01_01" / "000001" / "color.mp4", PAUSES).with_name("output.json")
    path.write_text(json.dumps({"stepSize": 0.5, "objects": [{"id": "1", "frames": [entry(0), entry(3)]}]}))
    refused(
        AnnotationError,
        lambda: read_edinburgh(tmp_path),
        where=path,
        found="labels a video whose frames come unevenly: 2 pauses, the longest of 9.2 s",
        expected="an even rate",
        fix="-fps_mode cfr -r 6 even.mp4",
    )
    path.write_text(json.dumps({"stepSize": 0.5, "objects": []}))  # nobody has labelled it yet
    assert len(read_edinburgh(tmp_path)) == 1
    assert len(caplog.messages) == 1
