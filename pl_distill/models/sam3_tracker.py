"""SAM 3's tracker unrolled by hand: many objects at once, frame by frame, with gradients.

Source: `Sam3TrackerVideoModel` and `Sam3VideoModel` of transformers 5.23, whose video forward passes run under
inference_mode and one object at a time. Here the same modules are called in the same order for N objects of one clip; a
test holds masks and scores equal to the original. What differs: masks are not blanked where the object seems hidden,
because a blank has no gradient; memories stay in the dtype of the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import get_1d_sine_pe

HIDDEN = -1024.0  # mask logit of an object that is not to be seen


@dataclass(frozen=True)
class TrackerFeatures:
    """What the tracker reads of B pictures, or of one picture for each of N objects; grid g, width C.

    Args:
        low: (B, C, g, g).
        middle: (B, C / 4, 2g, 2g).
        high: (B, C / 8, 4g, 4g).
        positions: (1, C, g, g), the position code of `low`.
    """

    low: Tensor
    middle: Tensor
    high: Tensor
    positions: Tensor

    def frames(self, first: int, count: int) -> "TrackerFeatures":
        """Take `count` pictures from `first` on."""
        low, middle, high = (level[first : first + count] for level in (self.low, self.middle, self.high))
        return TrackerFeatures(low, middle, high, self.positions)

    def of(self, picture: int, objects: int) -> "TrackerFeatures":
        """Repeat one picture for a number of objects, without copying."""
        low, middle, high = (
            level[picture : picture + 1].expand(objects, -1, -1, -1) for level in (self.low, self.middle, self.high)
        )
        return TrackerFeatures(low, middle, high, self.positions)


@dataclass(frozen=True)
class TrackerOutput:
    """What the tracker says about N objects in one frame.

    Args:
        masks: (N, K, 4g, 4g) mask logits; K is 3 on a prompt, and while tracking 3 or 1 by the configuration.
        quality: (N, K), predicted IoU of each mask, 0-1.
        score: (N,), logit of "the object can be seen".
        pointer: (N, C), what later frames remember of the object besides its place: that of the best guess.
    """

    masks: Tensor
    quality: Tensor
    score: Tensor
    pointer: Tensor

    @property
    def best_masks(self) -> Tensor:
        """(N, 4g, 4g), of each object the guess of the highest predicted IoU, which SAM 3 gives and remembers."""
        return _best(self.masks, self.quality)


@dataclass(frozen=True)
class FrameMemory:
    """What is kept of one frame for N objects.

    Args:
        features: (g * g, N, M).
        positions: (g * g, N, M).
        pointer: (N, C).
        conditioning: Whether the masks came from outside: a prompt or a confident detection.
    """

    features: Tensor
    positions: Tensor
    pointer: Tensor
    conditioning: bool


def tracker_features(model: Any, images: Tensor) -> TrackerFeatures:
    """Run trunk and tracker neck; no gradient reaches the trunk.

    Args:
        model: `transformers.Sam3VideoModel`.
        images: (B, 3, S, S), normalised.
    """
    side = model.tracker_model.prompt_encoder.image_embedding_size
    with torch.no_grad():
        tokens = model.detector_model.vision_encoder.backbone(images).last_hidden_state
    levels, positions = model.tracker_neck(tokens.transpose(1, 2).unflatten(2, side))
    decoder = model.tracker_model.mask_decoder
    return TrackerFeatures(levels[2], decoder.conv_s1(levels[1]), decoder.conv_s0(levels[0]), positions[2][:1])


def prompt(tracker: Any, features: TrackerFeatures, masks: Tensor) -> TrackerOutput:
    """Take objects over from masks, as on the frame in which a detection becomes a track.

    Args:
        tracker: `transformers.Sam3TrackerVideoModel`.
        features: Of the frame, for N objects.
        masks: (N, S, S), 0-1, at the size of the picture.

    Returns:
        What the mask decoder makes of it; only the pointer is used later, the masks themselves are taken as they are.
    """
    logits = tracker.mask_downsample(masks[:, None])
    size = tracker.prompt_encoder.mask_input_size
    if logits.shape[-2:] != size:  # where the patch is not 16 pixels
        logits = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    dense = tracker.prompt_encoder.mask_embed(logits)
    output = _decode(tracker, features.low, features, dense, several=True)
    pointer = _best(output.pointer, output.quality)
    visible = masks.flatten(1).any(1)
    return TrackerOutput(output.masks, output.quality, output.score, _blank(tracker, pointer, output.score, visible))


def track(tracker: Any, features: TrackerFeatures, memories: Mapping[int, FrameMemory], frame: int) -> TrackerOutput:
    """Find objects again in a later frame.

    Args:
        tracker: `transformers.Sam3TrackerVideoModel`.
        features: Of the frame, for N objects.
        memories: By number of frame; at least one is conditioning.
        frame: Number of this frame, above all in `memories`.
    """
    memory, positions, pointers = _recall(tracker, memories, frame, len(features.low))
    attended = tracker.memory_attention(
        current_vision_features=features.low.flatten(2).permute(2, 0, 1),
        current_vision_position_embeddings=features.positions.flatten(2).permute(2, 0, 1),
        memory=memory,
        memory_posision_embeddings=positions,
        num_object_pointer_tokens=pointers,
    )
    low = attended.squeeze(0).transpose(1, 2).reshape(features.low.shape)  # (1, N, g*g, C) -> (N, C, g, g)
    dense = tracker.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(low)
    output = _decode(tracker, low, features, dense, several=_several_while_tracking(tracker.config))
    pointer = _blank(tracker, _best(output.pointer, output.quality), output.score, None)
    return TrackerOutput(output.masks, output.quality, output.score, pointer)


def remember(
    tracker: Any, features: TrackerFeatures, masks: Tensor, pointer: Tensor, *, conditioning: bool, binary: bool
) -> FrameMemory:
    """Encode what was seen in a frame.

    Args:
        tracker: `transformers.Sam3TrackerVideoModel`.
        features: Of the frame, for N objects.
        masks: (N, h, w) mask logits of any size; `HIDDEN` everywhere for an object that is not to be seen.
        pointer: (N, C).
        conditioning: Whether the masks came from outside.
        binary: Whether masks are rounded first, as those of a prompt are.
    """
    size = [4 * side for side in tracker.prompt_encoder.mask_input_size]
    large = masks[:, None].float()
    if list(large.shape[-2:]) != size:
        large = F.interpolate(large, size=size, mode="bilinear", align_corners=False, antialias=True)
    covered = (large > 0).float() if binary else large.sigmoid()
    config = tracker.config
    encoded, positions = tracker.memory_encoder(
        features.low, covered * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
    )
    if tracker.occlusion_spatial_embedding_parameter is not None:
        hidden = ~(masks > 0).flatten(1).any(1)
        encoded = encoded + hidden[:, None, None, None] * tracker.occlusion_spatial_embedding_parameter[..., None, None]
    positions = positions.expand_as(encoded)
    return FrameMemory(
        encoded.flatten(2).permute(2, 0, 1), positions.flatten(2).permute(2, 0, 1), pointer, conditioning
    )


def _decode(tracker: Any, low: Tensor, features: TrackerFeatures, dense: Tensor, *, several: bool) -> TrackerOutput:
    """Run the mask decoder on N objects without points; the pointer is not blanked yet and has K rows, (N, K, C)."""
    count = len(low)
    nowhere = low.new_zeros(count, 1, 1, 2)
    sparse, _ = tracker.prompt_encoder(
        input_points=nowhere, input_labels=-torch.ones_like(nowhere[..., 0]).int(), input_boxes=None, input_masks=None
    )
    positions = tracker.get_image_wide_positional_embeddings().expand(count, -1, -1, -1)
    masks, quality, tokens, score = tracker.mask_decoder(
        image_embeddings=low,
        image_positional_embeddings=positions,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=several,
        high_resolution_features=[features.high, features.middle],
    )
    return TrackerOutput(masks[:, 0], quality[:, 0], score[:, 0, 0], tracker.object_pointer_proj(tokens[:, 0]))


def _several_while_tracking(config: Any) -> bool:
    """Say whether SAM 3 makes three guesses in a frame without points, as `_use_multimask` of transformers does."""
    several: bool = (
        config.multimask_output_in_sam
        and config.multimask_output_for_tracking
        and config.multimask_min_pt_num <= 0 <= config.multimask_max_pt_num
    )
    return several


def _best(guesses: Tensor, quality: Tensor) -> Tensor:
    """Take of each object the guess of the highest predicted IoU: (N, K, ...) and (N, K) -> (N, ...)."""
    return guesses[torch.arange(len(guesses), device=guesses.device), quality.argmax(1)]


def _blank(tracker: Any, pointer: Tensor, score: Tensor, visible: Tensor | None) -> Tensor:
    """Replace the pointers of objects that are not to be seen."""
    seen = score > 0 if visible is None else (score > 0) & visible
    return torch.where(seen[:, None], pointer, tracker.no_object_pointer.to(pointer.dtype))


def _recall(tracker: Any, memories: Mapping[int, FrameMemory], frame: int, objects: int) -> tuple[Tensor, Tensor, int]:
    """Put in a row what transformers would read at `frame`: tokens, their positions, how many of them are pointers."""
    config = tracker.config
    conditioning = {time: memory for time, memory in memories.items() if memory.conditioning}
    most = None if config.max_cond_frame_num == -1 else config.max_cond_frame_num  # -1: of all
    nearest = sorted(conditioning, key=lambda time: frame - time)[:most]
    chosen = [(0, conditioning[time]) for time in nearest]
    for back in range(tracker.num_maskmem - 1, 0, -1):
        memory = memories.get(frame - back)
        if memory is not None and frame - back not in nearest:
            chosen.append((back, memory))
    tokens = [memory.features for _, memory in chosen]
    positions = [
        memory.positions + tracker.memory_temporal_positional_encoding[back - 1].to(memory.positions.dtype)
        for back, memory in chosen
    ]
    pointing = [(frame - time, memory.pointer) for time, memory in conditioning.items()]
    for back in range(1, config.max_object_pointers_in_encoder):
        memory = memories.get(frame - back)
        if memory is not None and not memory.conditioning:
            pointing.append((back, memory.pointer))
    pointers = torch.stack([pointer for _, pointer in pointing])  # (K, N, C)
    width = pointers.shape[-1]
    parts = width // tracker.mem_dim
    # each pointer becomes C / M tokens
    tokens.append(pointers.view(*pointers.shape[:2], parts, tracker.mem_dim).transpose(1, 2).flatten(0, 1))
    if config.enable_temporal_pos_encoding_for_object_pointers:
        ages = torch.tensor([float(back) for back, _ in pointing], device=pointers.device)
        code = get_1d_sine_pe(ages / (config.max_object_pointers_in_encoder - 1), dim=width).to(pointers.dtype)
        code = tracker.temporal_positional_encoding_projection_layer(code)[:, None].expand(-1, objects, -1)
    else:
        code = pointers.new_zeros(len(pointing), objects, tracker.mem_dim)
    positions.append(code.repeat_interleave(parts, dim=0))
    return torch.cat(tokens), torch.cat(positions), parts * len(pointing)
