"""One hash over named tensors, behind the identity of every network: caches, pools and bundles compare it."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def tensors_sha256(named: Iterable[tuple[str, Tensor]], first: bytes = b"") -> str:
    """Hash `first`, then name, dtype, shape and bytes of each tensor: files hold the result, so it must not change.

    Args:
        named: In the order that counts. A tensor on the meta device has no bytes; its name and shape count alone.
        first: What a network answers by beside its tensors.
    """
    digest = hashlib.sha256(first)
    for name, tensor in named:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if not tensor.is_meta:
            # numpy knows no bfloat16: the bytes are what counts
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
