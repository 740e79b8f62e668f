import pytest
import torch
from transformers import Sam3VideoModel
from transformers.models.sam3.modeling_sam3 import apply_rotary_pos_emb_2d

from pl_distill.models.sam3 import load_sam3_config
from pl_distill.models.sam3_detector import detect
from pl_distill.models.sam3_initialise import initialise_detector, initialise_tracker
from pl_distill.models.sam3_tracker import prompt, remember, track, tracker_features


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = load_sam3_config("tiny")
    config.tracker_config.prompt_encoder_config.mask_input_channels = 16
    model = Sam3VideoModel(config).eval()
    initialise_detector(model.detector_model, anchor_size=0.2, prior=0.05)
    initialise_tracker(model)
    return model


def distance_to_own_place(attention):
    """Mean distance, in tokens, between the 8 x 8 tokens and what they attend to; `attention` is (64, 64)."""
    places = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), -1).view(-1, 2)
    return (attention * torch.cdist(places, places)).sum(1).div(attention.sum(1)).mean()


def test_queries_start_as_a_grid_of_anchors_with_the_prior_as_score(model):
    images = torch.randn(1, 3, 112, 112)
    ids = torch.tensor([[54, 53, 55]])
    with torch.no_grad():
        output = detect(
            model.detector_model,
            images,
            ids,
            torch.ones_like(ids),
            torch.zeros(1, dtype=torch.long),
            torch.ones(1).bool(),
        )
    boxes = output.boxes[0, 0]
    sizes = boxes[:, 2:] - boxes[:, :2]
    torch.testing.assert_close(sizes, torch.full_like(sizes, 0.2), atol=1e-3, rtol=0)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert torch.pdist(centres).min() > 0.2  # ten queries: rows of four, four and two
    assert 0.005 < output.logits.sigmoid().mean() < 0.2


def test_trunk_heads_look_near_their_own_place(model):
    """Head 0 looks around the query's own token, whatever the picture; evenly spread it would be 4.1 off."""
    backbone = model.detector_model.vision_encoder.backbone
    layer = backbone.layers[1]  # global attention over 8 x 8 tokens
    tokens = torch.randn(1, 8, 8, 32)
    attention = layer.attention
    seen = []
    hook = layer.rotary_emb.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        backbone(torch.randn(1, 3, 112, 112))
    hook.remove()
    cos, sin = seen[0]
    query = attention.q_proj(tokens).view(1, 64, 4, 8).transpose(1, 2)
    key = attention.k_proj(tokens).view(1, 64, 4, 8).transpose(1, 2)
    query, key = apply_rotary_pos_emb_2d(query, key, cos, sin)
    assert distance_to_own_place((query[0, 0] @ key[0, 0].T / 8**0.5).softmax(1)) < 2.5


def test_the_tracker_starts_by_remembering_the_place_of_the_mask(model):
    """Attention from a token of the next frame falls on the same place of the memory."""
    tracker = model.tracker_model
    images = torch.randn(1, 3, 112, 112).expand(2, -1, -1, -1)
    masks = torch.zeros(1, 112, 112)
    masks[:, :56] = 1
    with torch.no_grad():
        features = tracker_features(model, images)
        first = prompt(tracker, features.of(0, 1), masks)
        memory = remember(tracker, features.of(0, 1), masks * 20 - 10, first.pointer, conditioning=True, binary=True)
        seen = []
        cross = tracker.memory_attention.layers[0].cross_attn_image
        cross.config._attn_implementation = "eager"  # the only one that tells its weights
        hook = cross.register_forward_hook(lambda _m, _i, out: seen.append(out[1]))
        output = track(tracker, features.of(1, 1), {0: memory}, 1)
        hook.remove()
    assert torch.isfinite(output.masks).all()
    weights = seen[0][0, 0]  # (64 tokens, 64 memories + pointers)
    assert distance_to_own_place(weights[:, :64]) < 1.5


def test_what_a_mask_writes_is_zero_outside_and_of_unit_size_inside(model):
    tracker = model.tracker_model
    logits = torch.full((1, 1, 256, 256), -10.0)
    logits[:, :, :, 128:] = 10.0
    for path in (tracker.prompt_encoder.mask_embed, tracker.memory_encoder.mask_downsampler):
        with torch.no_grad():
            written = path(logits)[0]
        middle, width = written.shape[1] // 2, written.shape[2]
        assert written[:, middle, width // 4].abs().max() < 1e-4
        assert written[:, middle, 3 * width // 4].pow(2).mean() == pytest.approx(1, abs=1e-3)


def test_the_first_guess_follows_the_prompt_not_the_picture(model):
    """Prompts for the left and the right half: logits differ by as much as they vary."""
    tracker = model.tracker_model
    left = torch.zeros(1, 112, 112)
    left[:, :, :56] = 1
    with torch.no_grad():
        features = tracker_features(model, torch.randn(1, 3, 112, 112)).of(0, 2)
        masks = prompt(tracker, features, torch.cat([left, 1 - left])).masks[:, 0]
    assert (masks[0] - masks[1]).std() > 0.3 * masks.std()


def test_a_prompt_becomes_logits_of_ten_and_the_neck_is_the_detectors(model):
    tracker = model.tracker_model
    logits = tracker.mask_downsample(torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)]))
    torch.testing.assert_close(logits.flatten(1).mean(1), torch.tensor([-10.0, 10.0]))
    theirs = model.detector_model.vision_encoder.neck.fpn_layers
    tokens = model.detector_model.vision_encoder.backbone(torch.randn(1, 3, 112, 112)).last_hidden_state
    features = tokens.transpose(1, 2).unflatten(2, (8, 8))
    for ours, original in zip(model.tracker_neck.fpn_layers, theirs, strict=True):
        level, expected = ours(features).flatten(), original(features).flatten()
        assert torch.corrcoef(torch.stack([level, expected]))[0, 1] > 0.999  # the same but for its scale
        assert 0.3 < level.std() < 3
    assert (tracker.memory_encoder.memory_fuser.layers[0].scale == 1).all()
