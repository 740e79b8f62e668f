"""The student: TinyViT features, a feature pyramid, one map on the teacher's grid.

TinyViT is timm's (arXiv 2207.10666); the pyramid is Lin et al. 2017, its levels gathered and redistributed as in Libra
R-CNN (arXiv 1904.02701). What differs: it answers on the grid and with the channels of SAM 3's trunk, and ends on a
convolution: the trunk has no final norm, so its channel scales differ widely.

Parameters at real size (the defaults, with the teacher's two necks copied in):

====================================================  ==========
TinyViT-21M-512 without its head                      20,689,968
4 lateral 1x1 + GroupNorm to 256                         322,560
4 smoothing 3x3 + GroupNorm                            2,362,368
1 fusing 3x3 + GroupNorm                                 590,592
GroupNorm(1024) and the final 1x1 to 1024              1,051,648
the student's own part                                25,017,136
SAM 3's detector neck and tracker neck, 7,802,112 each 15,604,224
all                                                   40,621,360
====================================================  ==========

The paper gives 40.66M; we are 0.1 % below. The necks do 81 % of the work that replaces SAM 3's: 49 G multiply-adds at
1008 pixels, and 2 x 107 G for them. `tinyvit_dual` has a student without them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pl_distill.models.tinyvit import TinyViTStudent, add_downwards, resize, smoothing


class TinyViTFPN(TinyViTStudent):
    """Map images to the trunk map of a SAM 3 teacher.

    Args:
        out_channels: Channels of the teacher's trunk.
        grid: Side of the teacher's feature grid in cells: 72 for 1008 px and patches of 14.
        body: timm's name of a TinyViT; the four lists below override its sizes.
        embed_dims: Channels of the four stages, at strides 4, 8, 16, 32.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage; the first stage has none and its number is ignored.
        window_sizes: Side of the attention window of each stage in its own grid cells; the first is ignored.
        drop_path_rate: Stochastic depth, 0 to 1; 0 because a student that sees each target many times still underfits
            it.
        body_size: Side in pixels to which the body's input is resized (antialiased); a multiple of 32.
        fpn_channels: Channels of every pyramid level.
        norm_groups: Groups of each GroupNorm; divides `fpn_channels`.
        gradient_checkpointing: Recompute the body's stages in the backward pass: less memory for about a third more
            time.
        pretrained: Where TinyViT starts: a file of weights (safetensors, or a pickle of plain tensors), or a timm name
            with its tag such as "tiny_vit_21m_512.dist_in22k_ft_in1k", which is downloaded. None or an empty text:
            random weights.

    Raises:
        ConfigError: Sizes contradict each other.
        CheckpointError: The pretrained weights cannot be had or do not fit, key by key.
    """

    def __init__(
        self,
        out_channels: int = 1024,
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
    ) -> None:
        sizes = {"embed_dims": embed_dims, "depths": depths, "num_heads": num_heads, "window_sizes": window_sizes}
        super().__init__(
            sizes,
            {},
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
        self.smooths = nn.ModuleList(smoothing(fpn_channels, norm_groups) for _ in self.laterals)
        self.fuse = smoothing(fpn_channels, norm_groups)
        width = fpn_channels * len(self.laterals)
        self.head = nn.Sequential(nn.GroupNorm(norm_groups, width), nn.Conv2d(width, out_channels, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S), normalised as SAM 3's processor does, to a map (B, out_channels, grid, grid)."""
        pyramid = add_downwards(self.levels(images))
        on_grid = [resize(smooth(level), self.grid) for smooth, level in zip(self.smooths, pyramid, strict=True)]
        fused = self.fuse(
            torch.stack(on_grid).mean(0)
        )  # (B, fpn_channels, grid, grid), context at the teacher's own stride
        answer: Tensor = self.head(torch.cat([level + fused for level in on_grid], dim=1))
        return answer
