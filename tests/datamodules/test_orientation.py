"""Videos that say how to turn their pictures are read as players show them; OpenCV's own reader is the judge."""

import av
import cv2
import numpy as np
import pytest

from datamodules.edinburgh import read_edinburgh
from datamodules.video import VideoFrames, probe_video

STORED = np.zeros((48, 64, 3), np.uint8)  # four colours: any turn and mirror image is told from the others
STORED[:24, :32], STORED[:24, 32:], STORED[24:, :32] = (220, 40, 40), (40, 220, 40), (40, 40, 220)


@pytest.fixture
def write_turned():
    """Write a video of `STORED` that is to be shown turned anticlockwise, and then mirrored."""

    def write(path, degrees, mirrored=False, frames=3):
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=6, options={"crf": "10"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.set_display_rotation(degrees, hflip=mirrored)
            for _ in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(STORED, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_pictures_are_turned_as_opencv_turns_them(tmp_path, write_turned, degrees):
    path = write_turned(tmp_path / "a.mp4", degrees)
    judge = cv2.VideoCapture(str(path)).read()[1][..., ::-1]
    pictures = list(VideoFrames(path))
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.shape == judge.shape == np.rot90(STORED, degrees // 90).shape
        assert np.abs(picture.astype(int) - judge).mean() < 3
        assert np.abs(picture.astype(int) - np.rot90(STORED, degrees // 90)).mean() < 6


@pytest.mark.parametrize(
    ("degrees", "shown"), [(0, STORED[:, ::-1]), (180, STORED[::-1]), (90, STORED.transpose(1, 0, 2)[::-1, ::-1])]
)
def test_mirror_images_are_mirrored(tmp_path, write_turned, degrees, shown):
    picture = next(iter(VideoFrames(write_turned(tmp_path / "a.mp4", degrees, mirrored=True))))
    assert picture.shape == shown.shape
    assert np.abs(picture.astype(int) - shown).mean() < 6


@pytest.mark.parametrize(("degrees", "size"), [(0, (64, 48)), (180, (64, 48)), (90, (48, 64)), (-90, (48, 64))])
@pytest.mark.parametrize("frames", [1, 20])
def test_a_probe_tells_the_size_that_is_shown(tmp_path, write_turned, degrees, size, frames):
    info = probe_video(write_turned(tmp_path / "a.mp4", degrees, frames=frames))
    assert (info.width, info.height, info.num_frames) == (*size, frames)


def test_a_clip_has_the_size_of_its_pictures(tmp_path, write_turned):
    write_turned(tmp_path / "2026_01_01" / "000001" / "color.mp4", 90)
    (clip,) = read_edinburgh(tmp_path)
    assert (clip.height, clip.width, 3) == next(iter(clip.source)).shape == (64, 48, 3)
