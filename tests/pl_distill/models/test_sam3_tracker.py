"""The unrolled tracker against transformers' own forward pass, object by object and frame by frame."""

import pytest
import torch
from transformers import Sam3VideoModel
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import Sam3TrackerVideoInferenceSession

from pl_distill.models.sam3 import load_sam3_config
from pl_distill.models.sam3_random import randomise
from pl_distill.models.sam3_tracker import HIDDEN, FrameMemory, prompt, remember, track, tracker_features

SURE = 50
FRAMES = 7  # more than the memories and pointers that are kept


@pytest.fixture(scope="module", params=["several guesses, as facebook/sam3", "one guess, as the pen's"])
def model(request):
    torch.manual_seed(3)
    config = load_sam3_config("tiny")
    config.tracker_config.num_maskmem = 3
    config.tracker_config.max_object_pointers_in_encoder = 4
    alone = request.param.startswith("one")
    if alone:
        config.tracker_config.mask_decoder_config.dynamic_multimask_via_stability = False
        config.tracker_config.multimask_output_in_sam = False
    model = Sam3VideoModel(config).eval()
    randomise(model)
    if not alone:  # masks as sure as trained ones: for an unsure one SAM 3 takes the best of several, asked or not
        with torch.no_grad():
            for guess in model.tracker_model.mask_decoder.output_hypernetworks_mlps:
                guess.proj_out.weight *= SURE
                guess.proj_out.bias *= SURE
    return model


@pytest.fixture(scope="module")
def clip(model):
    """Pictures (T, 3, 112, 112) and two objects' prompts (2, 112, 112)."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(FRAMES, 3, 112, 112, generator=generator)
    masks = torch.zeros(2, 112, 112)
    masks[0, 10:50, 20:60] = 1
    masks[1, 60:100, 30:100] = 1
    return pictures, masks


def of_transformers(model, pictures, mask):
    """Masks (T, 32, 32) and scores (T,) of one object in frames 1 to T - 1."""
    tracker = model.tracker_model
    session = Sam3TrackerVideoInferenceSession(
        video=pictures, video_height=112, video_width=112, inference_device="cpu", dtype=torch.float32
    )
    session.obj_id_to_idx(0)
    session.add_mask_inputs(0, 0, mask[None, None])
    session.obj_with_new_inputs = [0]
    found = []
    for frame in range(len(pictures)):
        with torch.inference_mode():
            vision = model.detector_model.get_vision_features(pictures[frame : frame + 1])
            features, positions = model.get_vision_features_for_tracker(vision)
        session.cache.cache_vision_features(frame, {"vision_feats": features, "vision_pos_embeds": positions})
        found.append(tracker(inference_session=session, frame_idx=frame))
        session.obj_with_new_inputs = []
    return found


@torch.no_grad()
def unrolled(model, pictures, masks):
    tracker, features = model.tracker_model, tracker_features(model, pictures)
    memories: dict[int, FrameMemory] = {}
    outputs = []
    for frame in range(len(pictures)):
        seen = features.of(frame, len(masks))
        if frame == 0:
            output = prompt(tracker, seen, masks)
            logits = masks * 20 - 10
        else:
            output = track(tracker, seen, memories, frame)
            logits = torch.where(output.score[:, None, None] > 0, output.best_masks, HIDDEN)
            outputs.append((logits, output.score))
        memories[frame] = remember(tracker, seen, logits, output.pointer, conditioning=frame == 0, binary=frame == 0)
    return outputs


def test_the_unroll_agrees_with_transformers_for_every_object(model, clip):
    pictures, masks = clip
    ours = unrolled(model, pictures, masks)
    for number, mask in enumerate(masks):
        theirs = of_transformers(model, pictures, mask)
        for frame in range(1, FRAMES):
            logits, score = ours[frame - 1]
            expected = theirs[frame]
            torch.testing.assert_close(score[number], expected.object_score_logits.flatten()[0], atol=2e-2, rtol=2e-2)
            torch.testing.assert_close(logits[number], expected.pred_masks[0, 0], atol=5e-2 * SURE, rtol=2e-2)


def test_a_model_without_a_limit_of_conditioning_frames_reads_them_all(model, clip, monkeypatch):
    """-1 is transformers' word for it; as the end of a slice it would leave the prompt out."""
    pictures, masks = clip
    expected = unrolled(model, pictures, masks)  # one conditioning frame: less than any limit
    monkeypatch.setattr(model.tracker_model.config, "max_cond_frame_num", -1)
    for (logits, score), (other, other_score) in zip(expected, unrolled(model, pictures, masks), strict=True):
        torch.testing.assert_close(logits, other)
        torch.testing.assert_close(score, other_score)


def test_memories_change_the_answer(model, clip):
    """Without this, agreement above could be that of two blind trackers."""
    pictures, masks = clip
    (_, first), (_, second) = unrolled(model, pictures, masks)[0], unrolled(model, pictures, masks.flip(0))[0]
    assert (first - second).abs().max() > 1e-3
    (one, _), (other, _) = unrolled(model, pictures, masks)[3], unrolled(model, pictures, masks.flip(0))[3]
    torch.testing.assert_close(one, other.flip(0), atol=1e-4, rtol=1e-4)  # objects do not mix within a batch


def test_gradients_reach_memory_and_neck_and_not_the_trunk(model, clip):
    pictures, masks = clip
    tracker = model.tracker_model
    model.zero_grad()
    features = tracker_features(model, pictures[:3])
    first = prompt(tracker, features.of(0, 2), masks)
    memories = {0: remember(tracker, features.of(0, 2), masks * 20 - 10, first.pointer, conditioning=True, binary=True)}
    second = track(tracker, features.of(1, 2), memories, 1)
    memories[1] = remember(
        tracker, features.of(1, 2), second.best_masks, second.pointer, conditioning=False, binary=False
    )
    track(tracker, features.of(2, 2), memories, 2).masks.pow(2).mean().backward()
    assert tracker.memory_encoder.projection.weight.grad.abs().sum() > 0
    assert tracker.memory_attention.layers[0].cross_attn_image.q_proj.weight.grad.abs().sum() > 0
    assert model.tracker_neck.fpn_layers[2].proj1.weight.grad.abs().sum() > 0
    assert model.detector_model.vision_encoder.backbone.layers[0].attention.q_proj.weight.grad is None
