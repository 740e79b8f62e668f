"""The student: TinyViT features, a feature pyramid, one map on the teacher's grid.

TinyViT is timm's (arXiv 2207.10666); the pyramid is Lin et al. 2017, its levels gathered and redistributed as in Libra
R-CNN (arXiv 1904.02701). What differs: it answers on the grid and with the channels of SAM 3's trunk, takes SAM 3's
normalisation, ends on a convolution (the trunk has no final norm, so its channel scales differ widely), and keeps no
bias cache.

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

The paper gives 40.66M; we are 0.1 % below. TinyViT's convolutions carry BatchNorm: statistics are per process, so that
under DeepSpeed's ZeRO-1 and 2 a checkpoint holds those of rank 0 (DDP broadcasts them; use SyncBatchNorm or ZeRO-3 for
more).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models.tiny_vit import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.models.student_io import Student, load_strictly

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # what timm's TinyViT weights were trained with: timm.data.IMAGENET_DEFAULT_MEAN
IMAGENET_STD = (0.229, 0.224, 0.225)


class TinyViTFPN(Student):
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
        overrides: dict[str, Any] = {name: list(values) for name, values in sizes.items() if values is not None}
        pretrained = pretrained or None  # a command line can say an empty text, but not None
        super().__init__(
            {
                "body": body,
                **{name: overrides.get(name) for name in sizes},
                "drop_path_rate": drop_path_rate,
                "body_size": body_size,
                "grid": grid,
                "out_channels": out_channels,
                "fpn_channels": fpn_channels,
                "norm_groups": norm_groups,
                "gradient_checkpointing": gradient_checkpointing,
                "pretrained": pretrained,
            }
        )
        if body_size % 32:
            raise ConfigError(
                "body_size", f"is {body_size}", "a multiple of 32, TinyViT's stride", "Choose another size."
            )
        if fpn_channels % norm_groups:
            fix = "Change one of the two."
            raise ConfigError("norm_groups", f"is {norm_groups}", f"a divisor of fpn_channels ({fpn_channels})", fix)
        self.body_size = body_size
        self.grid = grid
        self.out_channels = out_channels
        self.body = build_body(body, {**overrides, "drop_path_rate": drop_path_rate})
        self.body.set_grad_checkpointing(gradient_checkpointing)
        if pretrained is not None:
            load_pretrained_body(self.body, pretrained, overrides)

        levels = [info["num_chs"] for info in self.body.feature_info]
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, fpn_channels, 1), nn.GroupNorm(norm_groups, fpn_channels))
            for channels in levels
        )
        self.smooths = nn.ModuleList(_smoothing(fpn_channels, norm_groups) for _ in levels)
        self.fuse = _smoothing(fpn_channels, norm_groups)
        width = fpn_channels * len(levels)
        self.head = nn.Sequential(nn.GroupNorm(norm_groups, width), nn.Conv2d(width, out_channels, 1))

        # pixel = image * 0.5 + 0.5 undoes SAM 3's normalisation; (pixel - mean) / std is ImageNet's.
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("input_scale", 0.5 / std, persistent=False)
        self.register_buffer("input_shift", (0.5 - mean) / std, persistent=False)
        self.input_scale: Tensor
        self.input_shift: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S), normalised as SAM 3's processor does, to a map (B, out_channels, grid, grid)."""
        levels: list[Tensor] = self.body.forward_intermediates(self._body_input(images), intermediates_only=True)
        pyramid = [lateral(level) for lateral, level in zip(self.laterals, levels, strict=True)]
        for fine in reversed(range(len(pyramid) - 1)):  # each coarser level tells the finer one what it saw
            above = F.interpolate(pyramid[fine + 1], size=pyramid[fine].shape[-2:], mode="nearest")
            pyramid[fine] = pyramid[fine] + above
        on_grid = [self._to_grid(smooth(level)) for smooth, level in zip(self.smooths, pyramid, strict=True)]
        fused = self.fuse(
            torch.stack(on_grid).mean(0)
        )  # (B, fpn_channels, grid, grid), context at the teacher's own stride
        answer: Tensor = self.head(torch.cat([level + fused for level in on_grid], dim=1))
        return answer

    def _body_input(self, images: Tensor) -> Tensor:
        """Resize (B, 3, S, S) to the body's size and convert to ImageNet's statistics; the same dtype comes back."""
        size = [self.body_size, self.body_size]
        pixels = images.float()  # antialiased resizing has no half-precision kernel everywhere
        if list(images.shape[-2:]) != size:
            pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
        return (pixels * self.input_scale.float() + self.input_shift.float()).to(images.dtype)

    def _to_grid(self, level: Tensor) -> Tensor:
        """Resize a level (B, C, H, W) to the teacher's grid; antialiased when that means fewer cells."""
        shrinks = level.shape[-1] > self.grid
        size = [self.grid, self.grid]
        return F.interpolate(level.float(), size=size, mode="bilinear", antialias=shrinks).to(level.dtype)


class UncachedAttention(Attention):  # type: ignore[misc]  # timm is read as untyped
    """TinyViT's attention that gathers its relative biases at each call.

    timm keeps the gathered biases in eval mode: 78,643,200 numbers at real size (315 MB in float32), which also outlive
    a change of the weights. A gather costs next to nothing.
    """

    def get_attention_biases(self, device: torch.device) -> Tensor:
        """Return the biases (heads, N, N) of a window of N cells."""
        biases: Tensor = self.attention_biases[:, self.attention_bias_idxs]
        return biases


def build_body(name: str, overrides: dict[str, Any]) -> Any:
    """Build a `timm.models.tiny_vit.TinyVit` without classifier and without bias cache.

    Args:
        name: timm's name of the architecture.
        overrides: Arguments of `timm.models.tiny_vit.TinyVit`.

    Raises:
        ConfigError: timm knows no such TinyViT.
    """
    if not name.startswith("tiny_vit") or not timm.is_model(name):
        known = ", ".join(timm.list_models("tiny_vit*"))
        raise ConfigError("body", f"is {name!r}", f"one of {known}", "Name a TinyViT of timm.")
    body = timm.create_model(name, pretrained=False, num_classes=0, **overrides)
    body.head = nn.Identity()  # its norm belongs to the classifier
    for module in body.modules():
        if isinstance(module, Attention):
            module.__class__ = UncachedAttention  # of this instance only: timm itself stays as it is
    return body


def load_pretrained_body(body: nn.Module, source: str, overrides: dict[str, Any]) -> None:
    """Load TinyViT's weights, every key, from a file or from timm's hub.

    Args:
        body: A body of `build_body`.
        source: A file (safetensors, or a pickle that holds plain tensors only), or timm's name with its tag.
        overrides: Sizes of this body; window sizes other than the source's are met by interpolating its biases (timm's
            own way).

    Raises:
        CheckpointError: The source cannot be read, or lacks or adds a key, or a shape differs.
    """
    path = Path(source)
    if path.is_file():
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        state = state.get("model", state)  # the layout of the authors' own files
    else:
        try:
            state = timm.create_model(source, pretrained=True, **overrides).state_dict()
        except Exception as error:  # timm, the hub client and the network each raise their own
            raise CheckpointError(
                source,
                f"is neither a file nor weights that timm could fetch ({type(error).__name__}: {error})",
                "a file of TinyViT weights, or timm's name with its tag, such as tiny_vit_21m_512.dist_in22k_ft_in1k",
                "Download the weights where there is a network and give the file's path.",
            ) from error
    # The classifier is not ours; index tables are computed, and only old files hold them.
    kept = {key: value for key, value in state.items() if not key.startswith("head.") and "bias_idxs" not in key}
    load_strictly(body, kept, source)


def _smoothing(channels: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(groups, channels), nn.GELU())
