"""What is left out to save memory changes not one bit of the output."""

import pytest
import torch
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import apply_rotary_pos_emb_2d

from datamodules.pen import load_pen_config, pen_frames
from pl_distill.assets import shipped_models
from pl_distill.models.prompts import load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3
from pl_distill.models.sam3_lean import LeanNeck
from pl_distill.streaming import PruningPolicy, StreamingTracker
from pl_distill.streaming.lean_activations import rotate_by_memory
from tests.pl_distill.streaming.conftest import blobs

SWITCHES = ("lean_necks", "lean_activations")


@pytest.fixture(scope="module")
def model(teacher):
    return load_sam3(teacher)


def stream(model, prompt, preprocessing, **changes):
    tracker = StreamingTracker(model, prompt, preprocessing, PruningPolicy(retirement=None, **changes))
    return [tracker.update(picture, index / 6) for index, picture in enumerate(blobs(10))]


def assert_equal(lean, full):
    assert any(len(tracks) > 1 for tracks in lean)
    for ours, theirs in zip(lean, full, strict=True):
        assert ours.ids == theirs.ids
        assert (ours.masks == theirs.masks).all()
        assert (ours.scores == theirs.scores).all()
        assert (ours.boxes_xyxy == theirs.boxes_xyxy).all()


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_lean_stream_is_the_same_bit_for_bit(model, prompt, preprocessing, switch):
    assert_equal(*(stream(model, prompt, preprocessing, **{switch: value}) for value in (True, False)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lean_stream_of_trained_weights_is_the_same_bit_for_bit_on_the_pen(dtype):
    """Eight frames: more memories than are kept, of 8 animals that are really found."""
    folder = shipped_models("sam3_video")["pen_teacher"]
    model, prompt = load_sam3(folder).to(dtype), load_prompts(folder)["pig"]
    pictures = [frame.image for frame in pen_frames(load_pen_config("day"), seed=1_000_000, frames=8)]
    streams = []
    for value in (True, False):
        policy = PruningPolicy(lean_necks=value, lean_activations=value)
        tracker = StreamingTracker(model, prompt, load_preprocessing(folder), policy)
        streams.append([tracker.update(picture, index / 6) for index, picture in enumerate(pictures)])
    assert_equal(*streams)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("memories", "pointers"), [(1, 0), (3, 0), (3, 5), (0, 4)])
def test_memories_are_turned_as_transformers_turns_them(dtype, memories, pointers):
    generator = torch.manual_seed(0)
    places, width = 9, 8
    q = torch.randn(1, places, 2, width, generator=generator).to(dtype).transpose(1, 2)
    k = torch.randn(1, memories * places + pointers, 2, width, generator=generator).to(dtype).transpose(1, 2)
    angles = torch.randn(1, places, width, generator=generator)
    arguments = (q, k, angles.cos(), angles.sin(), pointers)
    ours, theirs = rotate_by_memory(*arguments), apply_rotary_pos_emb_2d(*arguments, repeat_freqs_k=memories != 1)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()  # a kernel may sum in another order on another layout


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
