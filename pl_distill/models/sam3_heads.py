"""What SAM 3's detector makes of a pyramid: its heads alone, frozen, without trunk and necks.

Source: `Sam3Model.forward` of transformers, which takes features in the place of pixels; a test holds the two equal.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from pl_distill.models.prompts import PromptEmbedding, choose_prompt, load_prompts
from pl_distill.models.sam3_load import load_sam3


class MaskHeads(nn.Module):
    """Says where anything of one prompt is.

    Args:
        detector: A `Sam3Model`; its vision encoder is dropped.
        prompt: What to look for.
    """

    def __init__(self, detector: Any, prompt: PromptEmbedding) -> None:
        super().__init__()
        self.position_encoding: Any = detector.vision_encoder.neck.position_encoding
        detector.vision_encoder = None
        self.detector = detector
        self.register_buffer("text", prompt.embedding, persistent=False)
        self.register_buffer("text_mask", prompt.attention_mask, persistent=False)
        self.text: Tensor
        self.text_mask: Tensor
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Map the detector's three levels (B, C, ., .), fine to coarse, to probabilities (B, 4h, 4w)."""
        levels = [level.to(self.text.dtype) for level in levels]
        levels = [*levels, levels[-1]]  # the last is dropped by every reader
        features = Sam3VisionEncoderOutput(
            fpn_hidden_states=tuple(levels),
            fpn_position_encoding=tuple(
                self.position_encoding(level.shape, level.device, level.dtype) for level in levels
            ),
        )
        size = len(levels[0])
        answer = self.detector(
            vision_embeds=features,
            text_embeds=BaseModelOutputWithPooling(pooler_output=self.text.expand(size, -1, -1)),
            attention_mask=self.text_mask.expand(size, -1),
        )
        probabilities: Tensor = answer.semantic_seg.squeeze(1).sigmoid()
        return probabilities


def load_heads(source: str | Path, word: str) -> MaskHeads:
    """Load the heads of a SAM 3; the whole model is in memory for a moment.

    Args:
        source: A folder or hub name.
        word: What to look for; its embedding is stored beside the model.

    Raises:
        CheckpointError: The source is missing or damaged.
        ConfigError: The word is not stored.
    """
    prompt = choose_prompt(load_prompts(source), word)
    return MaskHeads(load_sam3(source).detector_model, prompt)


def overlap(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the soft overlap of probabilities (B, H, W): sum of the smaller over sum of the larger, (B,), 0 to 1."""
    smaller, larger = torch.minimum(student, teacher), torch.maximum(student, teacher)
    return smaller.sum(dim=(1, 2)) / larger.sum(dim=(1, 2)).clamp_min(torch.finfo(torch.float32).tiny)
