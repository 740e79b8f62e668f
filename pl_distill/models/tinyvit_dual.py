"""The other student: TinyViT features to both pyramids at once, without the teacher's necks.

SAM 3 reads two pyramids, which two necks make of the trunk's map. This student learns the six levels themselves: no
bottleneck of one map, and 109 G multiply-adds at 1008 pixels where `tinyvit_fpn` with its necks has 264 G. Convolutions
lie where the teacher's levels are read, two at stride 4, four at 8 and nine at 16 of the body's input, for each
pyramid; the answer ends on a convolution and is resized to the teacher's levels.

Parameters at real size (the defaults):

====================================================  ==========
TinyViT-21M-512 without its head                      20,689,968
4 lateral 1x1 + GroupNorm to 256                         322,560
context at stride 32: 1x1, GroupNorm, GELU, 1x1          132,096
3 smoothing 3x3 + GroupNorm                            1,771,776
2 x (2 + 4 + 9) 3x3, all but the last with GroupNorm  17,714,688
all                                                   40,631,088
====================================================  ==========

The paper gives 40.66M; we are 0.07 % below.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from pl_distill.errors import ConfigError
from pl_distill.models.sam3_necks import LEVELS, Pyramids
from pl_distill.models.tinyvit import TinyViTStudent, add_downwards, resize, smoothing


class TinyViTDualPyramid(TinyViTStudent):
    """Map images to both pyramids that SAM 3's detector and tracker read.

    Args:
        out_channels: Channels of every level of the teacher's pyramids.
        grid: Side of the teacher's feature grid in cells; the levels have 4, 2 and 1 times as many.
        body: timm's name of a TinyViT; the four lists below override its sizes.
        embed_dims: Channels of the four stages, at strides 4, 8, 16, 32.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage; the first stage has none and its number is ignored.
        window_sizes: Side of the attention window of each stage in its own grid cells; the first is ignored.
        drop_path_rate: Stochastic depth, 0 to 1; 0 because a student that sees each target many times still underfits
            it.
        body_size: Side in pixels to which the body's input is resized (antialiased); a multiple of 32.
        fpn_channels: Channels of the student's own pyramid.
        norm_groups: Groups of each GroupNorm; divides `fpn_channels`.
        gradient_checkpointing: Recompute the body's stages in the backward pass: less memory for about a third more
            time.
        pretrained: Where TinyViT starts: a file of weights (safetensors, or a pickle of plain tensors), or a timm name
            with its tag such as "tiny_vit_21m_512.dist_in22k_ft_in1k", which is downloaded. None or an empty text:
            random weights.
        tower_depths: Convolutions behind each of the three levels, fine to coarse, for each pyramid; at least 1.

    Raises:
        ConfigError: Sizes contradict each other.
        CheckpointError: The pretrained weights cannot be had or do not fit, key by key.
    """

    keeps_necks: ClassVar[bool] = False

    def __init__(
        self,
        out_channels: int = 256,
        grid: int = 72,
        body: str = "tiny_vit_21m_512",
        embed_dims: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        window_sizes: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        body_size: int = 512,
        fpn_channels: int = 256,
        norm_groups: int = 32,
        gradient_checkpointing: bool = False,
        pretrained: str | None = None,
        tower_depths: Sequence[int] = (2, 4, 9),
    ) -> None:
        tower_depths = list(tower_depths)
        if len(tower_depths) != LEVELS or min(tower_depths) < 1:
            raise ConfigError("tower_depths", f"is {tower_depths}", f"{LEVELS} positive numbers", "Correct it.")
        sizes = {"embed_dims": embed_dims, "depths": depths, "num_heads": num_heads, "window_sizes": window_sizes}
        super().__init__(
            sizes,
            {"tower_depths": tower_depths},
            grid=grid,
            out_channels=out_channels,
            body=body,
            drop_path_rate=drop_path_rate,
            body_size=body_size,
            fpn_channels=fpn_channels,
            norm_groups=norm_groups,
            gradient_checkpointing=gradient_checkpointing,
            pretrained=pretrained,
        )
        self.context = nn.Sequential(
            nn.Conv2d(fpn_channels, fpn_channels, 1),
            nn.GroupNorm(norm_groups, fpn_channels),
            nn.GELU(),
            nn.Conv2d(fpn_channels, fpn_channels, 1),
        )
        self.smooths = nn.ModuleList(smoothing(fpn_channels, norm_groups) for _ in range(LEVELS))
        self.detector, self.tracker = (
            nn.ModuleList(
                nn.Sequential(
                    *(smoothing(fpn_channels, norm_groups) for _ in range(depth - 1)),
                    nn.Conv2d(fpn_channels, out_channels, 3, padding=1),
                )
                for depth in tower_depths
            )
            for _ in range(2)
        )

    def forward(self, images: Tensor) -> Pyramids:
        """Map images (B, 3, S, S), normalised as SAM 3's processor does, to both pyramids (B, out_channels, ., .)."""
        *fine, coarsest = self.levels(images)
        pyramid = add_downwards([*fine, self.context(coarsest)])[:LEVELS]
        smoothed = [smooth(level) for smooth, level in zip(self.smooths, pyramid, strict=True)]
        return Pyramids(self._answer(self.detector, smoothed), self._answer(self.tracker, smoothed))

    def _answer(self, towers: nn.ModuleList, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        high, middle, low = (
            resize(tower(level), cells * self.grid)
            for tower, level, cells in zip(towers, levels, (4, 2, 1), strict=True)
        )
        return high, middle, low
