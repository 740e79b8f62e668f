import numpy as np
import pytest

from datamodules.clip import Annotation, Fingerprinted
from datamodules.image_shards import ImageShards
from datamodules.images import ImageFiles
from datamodules.shard_reader import ShardFrames
from datamodules.video import VideoFrames


def annotation(**changes):
    values = {
        "identities": ("a", "b"),
        "boxes_xyxy": np.zeros((2, 4), np.float32),
        "behaviours": (None, None),
        "visible": np.ones(2, bool),
    }
    return Annotation(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identities": ("a", "a")}, "repeat within a frame"),
        ({"boxes_xyxy": np.zeros((3, 4), np.float32)}, r"shape \(3, 4\), expected \(2, 4\)"),
        ({"behaviours": (None,)}, "2 entries"),
        ({"visible": np.ones(3, bool)}, "2 entries"),
        ({"masks": ()}, "0 masks for 2 identities"),
    ],
)
def test_an_annotation_has_as_much_of_everything_as_animals(changes, message):
    assert len(annotation()) == 2
    with pytest.raises(ValueError, match=message):
        annotation(**changes)


def test_frames_carry_their_number_time_and_labels(make_clip, number_of):
    clip = make_clip(frames=4)
    for _ in range(2):  # every iteration starts again
        frames = list(clip.frames())
        assert [frame.index for frame in frames] == [number_of(frame.image) for frame in frames] == [0, 1, 2, 3]
        assert frames[3].timestamp_s == pytest.approx(0.5)
        assert [frame.annotation is not None for frame in frames] == [True, False, True, False]


def test_recordings_can_tell_whether_they_have_changed(folder):
    assert isinstance(VideoFrames("a.mp4"), Fingerprinted)
    assert isinstance(ImageFiles(()), Fingerprinted)
    assert not isinstance(ShardFrames(ImageShards(folder), ()), Fingerprinted)
