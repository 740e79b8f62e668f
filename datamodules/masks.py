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


def is_whole_mask(mask: object) -> bool:
    """Whether this is an RLE whose runs fill its size exactly; pycocotools draws anything else without a word."""
    if not isinstance(mask, dict) or set(mask) != {"size", "counts"}:
        return False
    size, counts = mask["size"], mask["counts"]
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return False
    return isinstance(counts, str) and _length_of_runs(counts) == size[0] * size[1]


def _length_of_runs(counts: str) -> int | None:
    """Add up the runs of a compressed RLE; None where it is none.

    After COCO's rleFrString (github.com/cocodataset/cocoapi, common/maskApi.c): five bits a character, the least
    significant first, a sixth to go on, the last one's fifth is the sign; from the fourth run on the difference to the
    run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return None
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            return None
        value = shift = 0
    return sum(runs) if shift == 0 else None


def decode_masks(masks: Sequence[RLE]) -> NDArray[np.bool_]:
    """Decode N masks of one size to shape (N, H, W)."""
    if not masks:
        raise ValueError("no masks to decode: the size of an empty set is unknown")
    decoded = coco.decode([{"size": mask["size"], "counts": mask["counts"].encode("ascii")} for mask in masks])
    return np.ascontiguousarray(decoded.transpose(2, 0, 1)).astype(bool)
