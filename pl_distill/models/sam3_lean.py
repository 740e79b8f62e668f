"""SAM 3's necks without what nobody reads: the half-size level, and the position encodings of the two fine levels.

Source: transformers, models/sam3/modeling_sam3.py: every caller drops the last level (`[:-1]`), and of the position
encodings only the coarsest is read, by the DETR encoder and the tracker's memory. The other two would lie in a cache
of the process for good, 54 MB in half precision; here they are one zero that is repeated without taking memory.
Masks, boxes and scores stay the same bit for bit.
"""

from typing import Any

from torch import Tensor, nn

from pl_distill.models.sam3_necks import LEVELS


class LeanNeck(nn.Module):
    """Answers like a `Sam3VisionNeck`, in four levels of which the last is the third again.

    Args:
        neck: A `Sam3VisionNeck`, or what stands for one; its weights are shared.
    """

    def __init__(self, neck: Any) -> None:
        super().__init__()
        self.neck = neck
        self.position_encoding = neck.position_encoding

    def forward(self, hidden_states: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Map the trunk's (B, C, h, w) to levels and position encodings, fine to coarse."""
        if hasattr(self.neck, "fpn_layers"):
            levels = tuple(layer(hidden_states) for layer in self.neck.fpn_layers[:LEVELS])
        else:
            levels = self.neck.levels(hidden_states)
        *fine, coarse = levels
        read = self.position_encoding(coarse.shape, coarse.device, coarse.dtype)
        unread = [level.new_zeros(()).expand(level.shape) for level in fine]
        return (*levels, coarse), (*unread, read, read)
