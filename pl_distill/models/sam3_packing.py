"""Let a student that gives both pyramids stand where SAM 3's trunk was, without a line of SAM 3 changed.

Everything behind the trunk starts from its tokens: two necks read them. Here the tokens carry both pyramids, each 4x4,
2x2 or single patch of a level folded into the channels of its cell, and two necks without weights unfold them again,
bit for bit. At real size that is 10,752 numbers per cell instead of 1,024; they are copied once and live for a frame.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from pl_distill.errors import CheckpointError
from pl_distill.models.sam3_necks import LEVELS, Pyramids

FOLDS = tuple(2 ** (LEVELS - 1 - level) for level in range(LEVELS))  # 4, 2, 1: cells of each level per cell of the grid
CELLS_OF_LEVELS = [fold**2 for fold in FOLDS]
CELLS = sum(CELLS_OF_LEVELS)  # 21


def pack(pyramids: Pyramids) -> Tensor:
    """Fold both pyramids into tokens (B, h*w, 2 * 21 * C), the detector's first.

    Each level is copied once, all channels of a place side by side, so that a level in channels-last is copied in runs.
    """
    batch, channels, height, width = pyramids.detector[-1].shape
    tokens = pyramids.detector[-1].new_empty(batch, height, width, 2 * CELLS, channels)
    levels = [level for pyramid in pyramids for level in pyramid]
    for share, level, fold in zip(torch.split(tokens, 2 * CELLS_OF_LEVELS, dim=3), levels, 2 * FOLDS, strict=True):
        folded = level.view(batch, channels, height, fold, width, fold).permute(0, 2, 4, 3, 5, 1)
        share.view(folded.shape).copy_(folded)
    return tokens.view(batch, height * width, 2 * CELLS * channels)


def unpack(packed: Tensor, pyramid: Literal["detector", "tracker"]) -> tuple[Tensor, Tensor, Tensor]:
    """Unfold one pyramid of a map (B, 2 * 21 * C, h, w) of packed tokens; levels are channels-last, as tokens are."""
    batch, numbers, height, width = packed.shape
    halves = packed.permute(0, 2, 3, 1).reshape(batch, height, width, 2, CELLS, numbers // (2 * CELLS))
    half = halves[:, :, :, Pyramids._fields.index(pyramid)]
    levels = []
    for share, fold in zip(torch.split(half, CELLS_OF_LEVELS, dim=3), FOLDS, strict=True):
        cells = share.view(batch, height, width, fold, fold, -1).transpose(2, 3).contiguous()  # lets the rest go
        levels.append(cells.view(batch, height * fold, width * fold, -1).permute(0, 3, 1, 2))
    return levels[0], levels[1], levels[2]


class PyramidAdapter(nn.Module):
    """Lets a student of pyramids answer as the trunk does, for two `UnpackingNeck`.

    Args:
        student: Maps images (B, 3, S, S) to `Pyramids`.
        channels: Of every level that the modules behind expect.
        grid: Cells per side of the trunk's map.
    """

    def __init__(self, student: nn.Module, channels: int, grid: int) -> None:
        super().__init__()
        self.student = student
        self.channels = channels
        self.grid = grid

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        """Map images (B, 3, S, S) to packed tokens; the keywords are for transformers' own trunk.

        Raises:
            CheckpointError: A level has another shape than the teacher's.
        """
        pyramids = self.student(pixel_values)
        found = [tuple(level.shape[1:]) for pyramid in pyramids for level in pyramid]
        expected = [(self.channels, fold * self.grid, fold * self.grid) for fold in 2 * FOLDS]
        if found != expected:
            raise CheckpointError(
                "student pyramids",
                f"are {found}",
                f"the teacher's {expected}",
                "Set the student's out_channels and grid to match this teacher.",
            )
        return BaseModelOutput(last_hidden_state=pack(pyramids))


class UnpackingNeck(nn.Module):
    """Reads one pyramid out of packed tokens, in the place of a `Sam3VisionNeck`.

    Args:
        neck: The one that it stands for; its position encoding, which has no weights, is kept.
        pyramid: Whose.
    """

    def __init__(self, neck: Any, pyramid: Literal["detector", "tracker"]) -> None:
        super().__init__()
        self.position_encoding = neck.position_encoding
        self.pyramid: Literal["detector", "tracker"] = pyramid

    def forward(self, hidden_states: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Unfold (B, 2 * 21 * C, h, w); the last level stands for the half-size one, which every caller drops."""
        found = self.levels(hidden_states)
        levels = (*found, found[-1])
        return levels, tuple(self.position_encoding(level.shape, level.device, level.dtype) for level in levels)

    def levels(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unfold (B, 2 * 21 * C, h, w) into three levels, fine to coarse."""
        return unpack(hidden_states, self.pyramid)
