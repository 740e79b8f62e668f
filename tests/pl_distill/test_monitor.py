"""The live chain with a real embedder and a real head: complete, in order, each animal once."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from datamodules.behaviour_windows import Window
from datamodules.crops import Cropping
from pl_distill.errors import ConfigError
from pl_distill.models.behaviour_head import BehaviourModel, TemporalHead
from pl_distill.models.dinov3 import TransformersBackbone
from pl_distill.models.embedder import Embedder
from pl_distill.monitor import Monitor
from pl_distill.monitor_sinks import AnimalLines
from pl_distill.streaming.postprocess import Tracks

CLASSES = ("walk", "standing")


class Notebook:
    def __init__(self):
        self.seen, self.closed = [], False

    def observe(self, observations):
        self.seen.append(observations)

    def close(self):
        self.closed = True


@pytest.fixture(scope="module")
def embedder():
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, patch_size=8, image_size=16
    )
    return Embedder(TransformersBackbone(DINOv3ViTModel(config)), {}, 16, 16, Cropping(align=True))


@pytest.fixture(scope="module")
def behaviour(embedder):
    head = TemporalHead(32, 2, Window(2, 2), hidden=16).eval()
    return BehaviourModel(head, "temporal", CLASSES, Window(2, 2), 6.0, embedder.identity)


def frame_of(number: int, animals: int = 2) -> tuple[np.ndarray, Tracks]:
    image = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    masks, boxes = np.zeros((animals, 60, 80), bool), []
    for row in range(animals):
        left, top = 5 + 40 * row + number % 5, 10
        masks[row, top : top + 10, left : left + 20] = True
        boxes.append((left, top, left + 20, top + 10))
    scores = np.full(animals, 0.9, np.float32)
    return image, Tracks(tuple(range(animals)), np.array(boxes, np.float32).reshape(-1, 4), scores, masks)


@pytest.mark.parametrize("head_fps", [6.0, 2.0])
@pytest.mark.parametrize("late_s", [0.0, 0.03, -0.03])
def test_frames_are_observed_at_their_time_where_the_heads_rate_divides_the_clips(embedder, head_fps, late_s):
    """Edinburgh: six frames a second, every third is labelled, and the head learned two a second."""
    sink = Notebook()
    monitor = Monitor(embedder, None, [sink], fps=head_fps)
    every = round(6 / head_fps)
    for number in range(24):
        monitor.update(*frame_of(number), number, number / 6 + (late_s if number % 2 else 0.0))
    assert [one[0].frame for one in sink.seen] == list(range(0, 24, every))


def test_every_animal_of_every_frame_comes_out_once_with_its_behaviour(embedder, behaviour):
    sink = Notebook()
    monitor = Monitor(embedder, behaviour, [sink])
    given = [monitor.update(*frame_of(number), number, number / 6) for number in range(20)]
    assert given[:5] == [[]] * 5  # two observations of the window and three of the movement follow the moment
    assert {one.frame for one in given[5]} == {0}
    monitor.close()
    assert sink.closed
    found = [(one.frame, one.number) for frame in sink.seen for one in frame]
    assert found == [(frame, number) for frame in range(20) for number in (0, 1)]
    for one in (one for frame in sink.seen for one in frame):
        assert one.behaviour in CLASSES
        assert 0.5 <= one.probability <= 1
        np.testing.assert_allclose(np.linalg.norm(one.embedding), 1, rtol=1e-5)
        assert one.crop.shape == (3, 16, 16)
        assert one.time_s == one.frame / 6


def test_frames_between_observations_are_not_described(embedder, behaviour):
    sink = Notebook()
    monitor = Monitor(embedder, behaviour, [sink])
    for number in range(50):  # 25 frames a second; the head wants 6 observations
        monitor.update(*frame_of(number), number, number / 25)
    monitor.close()
    frames = [frame[0].frame for frame in sink.seen]
    assert len(frames) == 12 + 1
    assert set(np.diff(frames[1:])) <= {4, 5}


def test_a_number_that_changes_hands_between_observations_is_told_of_with_the_next_one(embedder, behaviour):
    sink = Notebook()
    monitor = Monitor(embedder, behaviour, [sink])
    for number in range(50):
        image, tracks = frame_of(number, animals=1 if number < 9 else 2)
        monitor.update(image, replace(tracks, renamed=frozenset({1} if number == 6 else ())), number, number / 25)
    monitor.close()
    assert [(one.frame, one.number) for frame in sink.seen for one in frame if one.is_renamed] == [(12, 1)]


@pytest.mark.parametrize(("rate", "warnings"), [(25, 0), (3, 0), (2, 1)])
def test_a_camera_too_slow_for_the_head_is_warned_of_once(embedder, behaviour, caplog, rate, warnings):
    monitor = Monitor(embedder, behaviour)
    for number in range(20):
        monitor.update(*frame_of(number), number, number / rate)
    assert len(caplog.messages) == warnings
    assert all("about 2.0 observations a second come" in message for message in caplog.messages)


def test_a_camera_that_drops_out_is_not_slow(embedder, behaviour, caplog):
    monitor = Monitor(embedder, behaviour)
    for number in range(20):
        monitor.update(*frame_of(number), number, number / 6 + (60 if number >= 10 else 0))
    assert not caplog.messages


def test_without_a_head_observations_come_at_once(embedder):
    monitor = Monitor(embedder)
    seen = monitor.update(*frame_of(0), 0, 0.0)
    assert [one.behaviour for one in seen] == [None, None]


def test_frames_without_animals_and_animals_without_pixels_are_no_trouble(embedder, behaviour):
    sink = Notebook()
    monitor = Monitor(embedder, behaviour, [sink])
    for number in range(12):
        image, tracks = frame_of(number, 0 if number % 3 == 0 else 2)
        if number == 4:
            tracks.masks[1] = False
        monitor.update(image, tracks, number, number / 6)
    monitor.close()
    found = [(one.frame, one.number) for frame in sink.seen for one in frame]
    expected = [(frame, number) for frame in range(12) if frame % 3 for number in (0, 1) if (frame, number) != (4, 1)]
    assert found == expected


def test_a_sink_that_fails_keeps_no_other_from_being_closed(embedder, behaviour):
    class Full(Notebook):
        def observe(self, observations):
            raise OSError("No space left on device")

        def close(self):
            self.closed = True
            raise OSError("No space left on device")

    sinks = [Full(), Notebook()]
    monitor = Monitor(embedder, behaviour, sinks)
    monitor.update(*frame_of(0), 0, 0.0)  # waits for its behaviour
    with pytest.raises(OSError, match="No space"):
        monitor.close()
    assert [sink.closed for sink in sinks] == [True, True]


def test_a_head_of_another_embedder_is_refused(embedder, behaviour):
    other = Embedder(embedder.backbone, {}, 16, 16, Cropping())
    with pytest.raises(ConfigError, match="another embedder"):
        Monitor(other, behaviour)


def test_lines_hold_what_was_seen(embedder, behaviour, tmp_path):
    monitor = Monitor(embedder, behaviour, [AnimalLines(tmp_path / "animals.jsonl")])
    for number in range(6):
        monitor.update(*frame_of(number), number, number / 6)
    monitor.close()
    lines = [json.loads(line) for line in (tmp_path / "animals.jsonl").read_text().splitlines()]
    assert len(lines) == 12
    assert lines[0]["image_id"] == 1
    assert lines[3] | {"probability": 0} == {
        "image_id": 2,
        "track_id": 1,
        "time_s": 0.1667,
        "bbox": [46.0, 10.0, 20.0, 10.0],
        "behaviour": lines[3]["behaviour"],
        "probability": 0,
        "animal": None,
    }
