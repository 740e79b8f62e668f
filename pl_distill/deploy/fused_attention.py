"""Attention as a GPU computes it: without ever holding the scores.

`F.scaled_dot_product_attention` chooses a kernel by what the machine has. Where torch was built without CUDA, a fake
CUDA tensor gets the plain formula, whose scores (heads x 5,184 x 5,184 for SAM 3) would be most of the memory that is
predicted. On a GPU of compute capability 5.0 or more, Jetsons included, the memory-efficient kernel takes float32,
float16 and bfloat16, with and without a mask (ATen/native/transformers/cuda/sdp_utils.cpp); it is what is counted here.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ALIGNED = 16  # keys; the kernel pads a mask to a multiple of it


class FusedAttention(TorchFunctionMode):
    """While on, attention over CUDA tensors is one operator that gives its output and one number per query."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace the one function."""
        if func is F.scaled_dot_product_attention and args[0].device.type == "cuda":
            return _efficient(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, float("-inf"))
        missing = -attn_mask.shape[-1] % ALIGNED
        if missing:
            attn_mask = F.pad(attn_mask, (0, missing))[..., : attn_mask.shape[-1]]
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    keeps_sums = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    output: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, keeps_sums, dropout_p, is_causal, scale=scale
    )[0]
    return output
