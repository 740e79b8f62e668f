"""What is left out to save memory changes not one bit of the output."""

import pytest
import torch

from pl_distill.models.sam3 import load_sam3
from pl_distill.models.sam3_lean import LeanNeck
from pl_distill.streaming import PruningPolicy, StreamingTracker
from tests.pl_distill.streaming.conftest import blobs


@pytest.fixture(scope="module")
def model(teacher):
    return load_sam3(teacher)


def stream(model, prompt, preprocessing, **changes):
    tracker = StreamingTracker(model, prompt, preprocessing, PruningPolicy(retirement=None, **changes))
    return [tracker.update(picture, index / 6) for index, picture in enumerate(blobs(10))]


def test_a_stream_with_lean_necks_is_the_same_bit_for_bit(model, prompt, preprocessing):
    lean, full = (stream(model, prompt, preprocessing, lean_necks=value) for value in (True, False))
    assert any(len(tracks) > 1 for tracks in lean)
    for ours, theirs in zip(lean, full, strict=True):
        assert ours.ids == theirs.ids
        assert (ours.masks == theirs.masks).all()
        assert (ours.scores == theirs.scores).all()


def test_memories_encoded_singly_are_those_of_a_batch_but_for_rounding(model, prompt, preprocessing):
    single, batch = (stream(model, prompt, preprocessing, encode_singly=value) for value in (True, False))
    for ours, theirs in zip(single, batch, strict=True):
        assert ours.ids == theirs.ids
        assert (ours.masks == theirs.masks).mean() > 0.999
        assert ours.scores == pytest.approx(theirs.scores, abs=0.01)


def test_a_lean_neck_gives_what_is_read_and_keeps_nothing_for_the_rest(model):
    neck = model.tracker_neck
    trunk_map = torch.randn(1, 32, 8, 8)
    levels, positions = neck(trunk_map)
    lean_levels, lean_positions = LeanNeck(neck)(trunk_map)
    for number in range(3):
        assert torch.equal(levels[number], lean_levels[number])
        assert lean_positions[number].shape == positions[number].shape
    assert torch.equal(positions[2], lean_positions[2])
    assert [position.untyped_storage().nbytes() for position in lean_positions[:2]] == [4, 4]


def test_the_model_itself_keeps_its_necks(model, prompt, preprocessing):
    before = model.tracker_neck
    StreamingTracker(model, prompt, preprocessing)
    assert model.tracker_neck is before
    assert not isinstance(before, LeanNeck)
