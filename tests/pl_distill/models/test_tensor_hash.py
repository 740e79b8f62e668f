import hashlib
import struct

import torch

from pl_distill.models.tensor_hash import tensors_sha256

NAMED = {
    "a": torch.tensor([[1.0, 3.0], [2.0, 4.0]]).T,  # not contiguous: the bytes are those in the order of its values
    "b": torch.tensor([1.0, -2.0], dtype=torch.bfloat16),
    "c": torch.tensor(7),
    "d": torch.empty(2, 0),
}
BYTES = (
    b"a torch.float32 (2, 2)\n" + struct.pack("<4f", 1, 2, 3, 4)
    + b"b torch.bfloat16 (2,)\n" + bytes.fromhex("803f00c0")
    + b"c torch.int64 ()\n" + struct.pack("<q", 7)
    + b"d torch.float32 (2, 0)\n"
)  # fmt: skip


def test_the_hash_is_over_name_dtype_shape_and_bytes():
    assert tensors_sha256(NAMED.items()) == hashlib.sha256(BYTES).hexdigest()


def test_what_comes_first_is_hashed_first():
    assert tensors_sha256(NAMED.items(), b"{}") == hashlib.sha256(b"{}" + BYTES).hexdigest()


def test_a_tensor_without_bytes_counts_by_name_and_shape():
    weight = torch.empty(3, device="meta")
    assert tensors_sha256([("w", weight)]) == hashlib.sha256(b"w torch.float32 (3,)\n").hexdigest()
