"""An embedder: a picture of one animal in, one vector of length 1 out, and features for a behaviour head beside it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.clip import Image
from datamodules.crops import Cropping, crop_animals, croppable
from datamodules.lies import lies_of
from pl_distill.models.dinov3 import IMAGENET_MEAN, IMAGENET_STD
from pl_distill.models.tensor_hash import tensors_sha256


class PatchHead(nn.Linear):
    """Reads all patch tokens in their order and answers in two halves.

    Where crops are aligned a place in the crop is a place on the animal; a small network need not learn to carry places
    in its class token. DINOv3 itself has none.

    Args:
        values: Of all patch tokens together, h*w*C.
        dimension: Length D of each half.
    """

    def __init__(self, values: int, dimension: int) -> None:
        super().__init__(values, 2 * dimension)

    def halves(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Map patch tokens (N, h*w, C) to identity and posture, (N, D) each, float32."""
        identity, posture = self(patches.flatten(1)).float().split(self.out_features // 2, dim=1)
        return identity, posture


class Embedder(nn.Module):
    """Describes pictures of animals, batched; frozen and in eval mode.

    Args:
        backbone: The network.
        architecture: Its name and arguments, as plain values.
        dimension: Length D of an embedding.
        image_size: Side S in pixels that pictures are scaled to.
        cropping: How animals are cut out for it.
        mean: Of the training data, per channel, 0-1.
        std: The same.
        head: Answers instead of the class token: its first half is the embedding, the second the features.

    Attributes:
        identity: SHA-256 over architecture, cropping, preprocessing and weights: what a store of embeddings belongs to.
    """

    def __init__(
        self,
        backbone: nn.Module,
        architecture: Mapping[str, Any],
        dimension: int,
        image_size: int,
        cropping: Cropping,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        head: PatchHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.dimension = dimension
        self.image_size = image_size
        self.cropping = cropping
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.requires_grad_(False).eval()
        settings = {"size": image_size, "mean": mean, "std": std, "cropping": asdict(cropping)}
        self.identity = _identity(self, {**architecture, **settings})

    @property
    def feature_dimension(self) -> int:
        """Length of what `describe` gives beside the embedding."""
        return 2 * self.dimension if self.head is None else self.dimension

    def crop(self, frame_rgb: Image, boxes_xyxy: NDArray[Any], masks: NDArray[np.bool_] | None = None) -> Tensor:
        """Cut animals out as this embedder wants them, uint8 (N, 3, S, S): `crop_animals` with its `cropping`.

        Raises:
            DataError: An animal cannot be cut out; `croppable` says which.
        """
        how = self.cropping
        return crop_animals(
            frame_rgb, boxes_xyxy, masks, how.margin, how.blank_background, self.image_size, align=how.align
        )

    def describe_animals(
        self, frame_rgb: Image, boxes_xyxy: NDArray[Any], masks: NDArray[np.bool_] | None = None
    ) -> "Described":
        """Cut the animals of a frame out and describe them; what cannot be cut out (`croppable`) is left out.

        Args:
            frame_rgb: Picture (H, W, 3), uint8.
            boxes_xyxy: Shape (N, 4), pixels.
            masks: Shape (N, H, W), or None: then nothing is blanked or aligned.
        """
        rows, crops = self.cut_out(frame_rgb, boxes_xyxy, masks)
        embeddings, features = self.describe(crops)
        return Described(rows, crops, embeddings, features, self._lies(boxes_xyxy[rows], masks, rows))

    def cut_out(
        self, frame_rgb: Image, boxes_xyxy: NDArray[Any], masks: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], Tensor]:
        """Cut out those animals of a frame that can be (`croppable`): which rows they are, and their crops."""
        used = masks if self.cropping.needs_masks else None
        rows = np.flatnonzero(croppable(boxes_xyxy, (frame_rgb.shape[0], frame_rgb.shape[1]), used))
        return rows, self.crop(frame_rgb, boxes_xyxy[rows], None if used is None else used[rows])

    def _lies(
        self, boxes_xyxy: NDArray[Any], masks: NDArray[np.bool_] | None, rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        used = masks if self.cropping.needs_masks else None
        return lies_of(boxes_xyxy, None if used is None else used[rows]).astype(np.float32)

    def embed(self, crops: Tensor) -> Tensor:
        """Give one vector of length 1 for each picture: the class token, as DINOv3's own evaluations of retrieval do.

        With a `head` its first half instead.

        Args:
            crops: RGB (N, 3, H, W), uint8 or float of 0..1, on any device.

        Returns:
            Shape (N, D), float32, on the embedder's device.
        """
        return self.describe(crops)[0]

    @torch.inference_mode()
    def describe(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Give embeddings (N, D), and features (N, F) for a behaviour head: class token and mean of the patch tokens.

        The class token says which animal it is, the patches how it lies there; DINOv3's linear probes take both. With a
        `head` the embedding is its first half and the features are its second.
        """
        if not len(crops):
            empty = torch.zeros(0, self.dimension, device=self.mean.device)
            return empty, torch.zeros(0, self.feature_dimension, device=self.mean.device)
        return self.read(self.prepare(crops))

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Do what `describe` does with pictures (N, 3, S, S) that are scaled and normalised."""
        cls, patches = self.backbone(images)
        if self.head is not None:
            identity, posture = self.head.halves(patches)
            return F.normalize(identity, dim=-1), posture
        cls, patches = cls.float(), patches.float()
        return F.normalize(cls, dim=-1), torch.cat([cls, patches.mean(1)], dim=-1)

    def prepare(self, crops: Tensor) -> Tensor:
        """Scale pictures to `image_size` and normalise them.

        Raises:
            ValueError: They are not (N, 3, H, W) or of another dtype.
        """
        if crops.ndim != 4 or crops.shape[1] != 3 or not (crops.dtype == torch.uint8 or crops.is_floating_point()):
            raise ValueError(f"crops are {crops.dtype} of shape {tuple(crops.shape)}, expected (N, 3, H, W)")
        images = crops.to(self.mean.device)
        images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        if images.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        return (images - self.mean) / self.std


class Described(NamedTuple):
    """Animals of one frame as an embedder sees them; M of them.

    Args:
        rows: Which of the animals that were asked for, (M,), rising.
        crops: Pictures, uint8, (M, 3, S, S).
        embeddings: Shape (M, D), float32, of length 1.
        features: Shape (M, F), float32, for a behaviour head.
        lies: How each lies in the picture, (M, len(LIE)), float32, by its mask where the embedder uses masks.
    """

    rows: NDArray[np.int64]
    crops: Tensor
    embeddings: Tensor
    features: Tensor
    lies: NDArray[np.float32]


def _identity(embedder: nn.Module, architecture: Mapping[str, Any]) -> str:
    described = json.dumps(architecture, sort_keys=True, default=str).encode()
    return tensors_sha256(sorted(embedder.state_dict().items()), described)
