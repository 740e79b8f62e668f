"""What our students share: a TinyViT, its input, and its four levels brought to one width.

TinyViT is timm's (arXiv 2207.10666). What differs: it takes SAM 3's normalisation, so that SAM 3's processor stays as
it is, and keeps no bias cache.

TinyViT's convolutions carry BatchNorm: statistics are per process, so that under DeepSpeed's ZeRO-1 and 2 a checkpoint
holds those of rank 0 (DDP broadcasts them; use SyncBatchNorm or ZeRO-3 for more).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.tiny_vit import Attention, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.models.checkpoints import load_strictly
from pl_distill.models.student_io import Student

IMAGENET_MEAN, IMAGENET_STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD  # of timm's TinyViT weights


class TinyViTStudent(Student):
    """A student with TinyViT's body; the designs differ in what they make of `levels`.

    Args:
        sizes: TinyViT's `embed_dims`, `depths`, `num_heads` and `window_sizes`; None where the body's own are meant.
        design: Arguments of the design that are not named here, for the student's description.
        grid: Side of the teacher's feature grid in cells.
        out_channels: Channels of the answer.
        body: timm's name of a TinyViT.
        drop_path_rate: Stochastic depth, 0 to 1.
        body_size: Side in pixels to which the body's input is resized (antialiased); a multiple of 32.
        fpn_channels: Channels of every pyramid level.
        norm_groups: Groups of each GroupNorm; divides `fpn_channels`.
        gradient_checkpointing: Recompute the body's stages in the backward pass.
        pretrained: Where TinyViT starts, see `load_pretrained_body`; None or an empty text: random weights.

    Raises:
        ConfigError: Sizes contradict each other.
        CheckpointError: The pretrained weights cannot be had or do not fit, key by key.
    """

    def __init__(
        self,
        sizes: Mapping[str, Sequence[int] | None],
        design: Mapping[str, Any],
        *,
        grid: int,
        out_channels: int,
        body: str,
        drop_path_rate: float,
        body_size: int,
        fpn_channels: int,
        norm_groups: int,
        gradient_checkpointing: bool,
        pretrained: str | None,
    ) -> None:
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
                **design,
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
        self.body = build_body(body, {**overrides, "drop_path_rate": drop_path_rate})
        if gradient_checkpointing:
            self.body.set_grad_checkpointing()
            _halve_batchnorm_updates(self.body.stages)
        if pretrained is not None and not next(self.body.parameters()).is_meta:  # a network that is only counted
            load_pretrained_body(self.body, pretrained, overrides)
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(info["num_chs"], fpn_channels, 1), nn.GroupNorm(norm_groups, fpn_channels))
            for info in self.body.feature_info
        )

        # pixel = image * 0.5 + 0.5 undoes SAM 3's normalisation; (pixel - mean) / std is ImageNet's.
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("input_scale", 0.5 / std, persistent=False)
        self.register_buffer("input_shift", (0.5 - mean) / std, persistent=False)
        self.input_scale: Tensor
        self.input_shift: Tensor

    def levels(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, S, S) to four levels (B, fpn_channels, H, W) at strides 4, 8, 16, 32 of its input."""
        found: list[Tensor] = self.body.forward_intermediates(self._body_input(images), intermediates_only=True)
        return [lateral(level) for lateral, level in zip(self.laterals, found, strict=True)]

    def _body_input(self, images: Tensor) -> Tensor:
        """Resize (B, 3, S, S) to the body's size and convert to ImageNet's statistics; the same dtype comes back.

        Channels-last, which convolutions hand on: some percent faster on a CPU (docs/deployment.md).
        """
        pixels = resize(images.float(), self.body_size)  # antialiased resizing has no half-precision kernel everywhere
        normalised = (pixels * self.input_scale.float() + self.input_shift.float()).to(images.dtype)
        return normalised.contiguous(memory_format=torch.channels_last)


def _halve_batchnorm_updates(stages: nn.Module) -> None:
    """Let the running statistics move in two passes, the second of the recomputation, as far as in one.

    Both go towards the same batch, so that (1 - halved)^2 = 1 - momentum.
    """
    for module in stages.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
            module.momentum = 1 - math.sqrt(1 - module.momentum)


def add_downwards(levels: Sequence[Tensor]) -> list[Tensor]:
    """Tell each finer level what the coarser ones saw: levels (B, C, H, W), fine to coarse; the same shapes."""
    pyramid = list(levels)
    for fine in reversed(range(len(pyramid) - 1)):
        above = F.interpolate(pyramid[fine + 1], size=pyramid[fine].shape[-2:], mode="nearest")
        pyramid[fine] = pyramid[fine] + above
    return pyramid


def resize(features: Tensor, side: int) -> Tensor:
    """Resize (B, C, H, W) to (B, C, side, side); antialiased when that means fewer cells, untouched when it is so."""
    if features.shape[-2:] == (side, side):
        return features
    shrinks = features.shape[-1] > side
    return F.interpolate(features.float(), size=[side, side], mode="bilinear", antialias=shrinks).to(features.dtype)


def smoothing(channels: int, groups: int) -> nn.Sequential:
    """Return a 3x3 convolution with norm and activation, of as many channels as it takes."""
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(groups, channels), nn.GELU())


class UncachedAttention(Attention):  # type: ignore[misc]  # timm is read as untyped
    """TinyViT's attention that gathers its relative biases at each call.

    timm keeps the gathered biases in eval mode: 78,643,200 numbers at real size (315 MB in float32), which also outlive
    a change of the weights. A gather costs next to nothing. The table of indices, which timm keeps as int64 in each of
    ten blocks (55 MB), is int32 and lies in the first block of its window size.
    """

    table_owner: "list[UncachedAttention]"  # a list, so that the owner is no child

    def share_table(self, owner: "UncachedAttention") -> None:
        """Use the table of a block with the same window; the owner's own becomes int32."""
        self.table_owner = [owner]
        table = self.attention_bias_idxs.to(torch.int32) if owner is self else None
        self.register_buffer("attention_bias_idxs", table, persistent=False)

    def get_attention_biases(self, device: torch.device) -> Tensor:
        """Return the biases (1, heads, N, N) of a window of N cells.

        timm returns three axes; with three torch's CPU kernel for fused attention declines and the scores are stored.
        """
        table = self.table_owner[0].attention_bias_idxs
        # index_select and not [:, table]: ONNX's Gather takes int32, its GatherND does not
        biases: Tensor = self.attention_biases.index_select(1, table.flatten()).unflatten(1, table.shape)
        return biases[None]


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
    owners: dict[tuple[int, int], UncachedAttention] = {}
    for module in body.modules():
        if isinstance(module, Attention):
            module.__class__ = UncachedAttention  # of this instance only: timm itself stays as it is
            module.share_table(owners.setdefault(module.resolution, module))
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
        try:
            state: Any = (
                load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
            )
            state = dict(state.get("model", state))  # the layout of the authors' own files
        except Exception as error:  # torch and safetensors raise by what is wrong with the bytes
            found = f"cannot be read ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
            raise CheckpointError(source, found, "TinyViT's weights", "Download or copy the file again.") from error
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
    if kept.keys() == body.state_dict().keys():  # it would look for tables of layers that are not there
        kept = checkpoint_filter_fn(kept, body)
    load_strictly(body, kept, source)
