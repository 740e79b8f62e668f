"""Binary masks to and from COCO RLE."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from datamodules.clip import RLE


def encode_mask(mask: NDArray[np.bool_]) -> RLE:
    """Encode one mask of shape (H, W)."""
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(n) for n in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decode_masks(masks: Sequence[RLE]) -> NDArray[np.bool_]:
    """Decode N masks of one size to shape (N, H, W)."""
    if not masks:
        raise ValueError("no masks to decode: the size of an empty set is unknown")
    decoded = coco.decode([{"size": mask["size"], "counts": mask["counts"].encode("ascii")} for mask in masks])
    return np.ascontiguousarray(decoded.transpose(2, 0, 1)).astype(bool)
