"""SAM 3's tracker and mask decoder in less memory: the same bits, fewer of them at a time.

Source: transformers, models/sam3_tracker_video/modeling_sam3_tracker_video.py (`apply_rotary_pos_emb_2d`) and
models/sam3/modeling_sam3.py (`Sam3MaskDecoder._embed_pixels`). The first turns the keys of all memories of an animal at
once, in float32, beside angles that are repeated for each memory: six tensors of 36 MB at real size. The second copies
a pyramid that it only reads.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.sam3.modeling_sam3 import Sam3MaskDecoder
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import (
    Sam3TrackerVideoRoPEAttention,
    rotate_pairwise,
)

from pl_distill.models.sam3 import shallow_twin
from pl_distill.streaming.rebinding import rebound


def rotate_by_memory(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, num_k_exclude_rope: int = 0, repeat_freqs_k: bool = False
) -> tuple[Tensor, Tensor]:
    """Do what `apply_rotary_pos_emb_2d` does, for one memory after the other.

    Args:
        q: Queries (B, heads, N, D).
        k: Keys (B, heads, M * N + pointers, D): M memories, and pointers that have no place.
        cos: Of the angles of a memory's N places, (1, N, D), float32.
        sin: The same.
        num_k_exclude_rope: Number of pointers.
        repeat_freqs_k: Whether M may be other than 1; the same is done for any.

    Returns:
        Turned queries and keys, in their dtype.
    """
    places, end = q.shape[-2], k.shape[-2] - num_k_exclude_rope
    turned = [_turn(k[..., start : start + places, :], cos, sin) for start in range(0, end, places)]
    return _turn(q, cos, sin), torch.cat([*turned, k[..., end:, :]], dim=-2)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    wide = x.float()
    turned: Tensor = (wide * cos) + (rotate_pairwise(wide) * sin)
    return turned.type_as(x)


class LeanRoPEAttention(Sam3TrackerVideoRoPEAttention):  # type: ignore[misc]  # transformers is untyped
    """Turns the memories one after the other."""

    forward = rebound(Sam3TrackerVideoRoPEAttention.forward, apply_rotary_pos_emb_2d=rotate_by_memory)


class LeanMaskDecoder(Sam3MaskDecoder):  # type: ignore[misc]
    """Reads the pyramid without a copy."""

    def _embed_pixels(self, backbone_features: list[Tensor], encoder_hidden_states: Tensor) -> Tensor:
        *fine, coarse = backbone_features
        height, width = coarse.shape[-2:]
        seen = encoder_hidden_states[:, : height * width].transpose(1, 2)  # (B, C, h*w)
        pixels: Tensor = self.pixel_decoder([*fine, seen.reshape(*seen.shape[:2], height, width)])
        return pixels


def lean_tracker(tracker: Any) -> Any:
    """Return a view of a `Sam3TrackerVideoModel` whose memory attention is lean; all tensors are shared."""
    view = shallow_twin(tracker)
    view.memory_attention = shallow_twin(tracker.memory_attention)
    layers = [shallow_twin(layer) for layer in tracker.memory_attention.layers]
    for layer in layers:
        layer.cross_attn_image = shallow_twin(layer.cross_attn_image)
        layer.cross_attn_image.__class__ = LeanRoPEAttention
    view.memory_attention.layers = nn.ModuleList(layers)
    return view


def lean_mask_decoder(decoder: Any) -> Any:
    """Return a view of a `Sam3MaskDecoder` that copies nothing; all tensors are shared."""
    view = shallow_twin(decoder)
    view.__class__ = LeanMaskDecoder
    return view
