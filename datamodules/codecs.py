"""How a teacher's map is stored: three codecs, each with the cosine that it keeps and that `cache verify` asks for.

A codec works in two halves: `quantise` runs where the map is, on the GPU; `pack` runs in the thread that writes. Every
member of a shard is an npy file, except that `pca-int8` compresses it with zstd. Lossless compression pays only there:
of float16 maps zstd takes 8 %, of int8 maps 1-4 %, of the integers of `pca-int8`, most of which are near 0, 50-85 %.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.codec_basis import Basis
from datamodules.errors import CacheError

Map = NDArray[np.float16]
"""One trunk map, shape (C, h, w)."""

CodecName = Literal["float16", "int8", "pca-int8"]

_LARGEST = float(np.finfo(np.float16).max)  # 65504
_STEPS = 127  # of int8 on either side of 0
_BLOCK = 16384  # bytes


def require_float16_range(maps: Tensor, keys: Sequence[str]) -> None:
    """Refuse maps (B, C, h, w) that no codec can give back: a decoded map is float16.

    Raises:
        CacheError: A map holds NaN, infinity or a value beyond float16; names the sample.
    """
    largest = maps.abs().flatten(1).amax(1).float().cpu()  # (B,); amax carries NaN on
    for key, value in zip(keys, largest.tolist(), strict=True):
        if not value <= _LARGEST:
            raise CacheError(
                f"sample {key}",
                f"has a teacher map that reaches {value}",
                f"finite values up to {_LARGEST:.0f}, the largest of float16",
                "Run the teacher in float32 (--trainer.precision 32-true) and check its weights.",
            )


class Codec(ABC):
    """Turns maps into the bytes of a shard's members, and back.

    Attributes:
        name: As the cache's identity calls it.
        suffix: Of a member's name, after the sample's key.
        floor: The least cosine per location, averaged over a map, that a decoded map has with the teacher's.
    """

    name: ClassVar[CodecName]
    suffix: ClassVar[str] = ".feature.npy"
    floor: ClassVar[float]

    @abstractmethod
    def quantise(self, maps: Tensor) -> NDArray[Any]:
        """Reduce maps (B, C, h, w), on any device, to numbers on the CPU, (B, ...); they must be in float16's range."""

    def pack(self, values: NDArray[Any]) -> list[bytes | memoryview]:
        """Return one map's numbers as the parts of a file; copies nothing."""
        contiguous = np.ascontiguousarray(values)
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(contiguous))
        return [head.getvalue(), contiguous.reshape(-1).view(np.uint8).data]

    @abstractmethod
    def unpack(self, data: bytes) -> Map:
        """Return the map that a file holds; it may be read-only.

        Raises:
            ValueError: The bytes are something else.
        """

    @abstractmethod
    def shape_of(self, values: NDArray[Any]) -> tuple[int, ...]:
        """Return the shape of the map that `values`, of one map, stand for: (C, h, w)."""


class Float16(Codec):
    """Maps rounded to float16: 10.6 MB a frame of SAM 3."""

    name = "float16"
    floor = 0.999

    def quantise(self, maps: Tensor) -> NDArray[Any]:
        """Round to nearest."""
        return maps.to(torch.float16).cpu().numpy()

    def unpack(self, data: bytes) -> Map:
        """Return a view of `data`."""
        values: Map = _read_npy(data, (np.dtype("<f2"),))
        return values

    def shape_of(self, values: NDArray[Any]) -> tuple[int, ...]:
        """Return the array's own shape."""
        return values.shape


class Int8(Codec):
    """Integers of 8 bits with one scale per channel and map: half of float16, cosine 0.9999.

    Channels a hundred times larger than others cost the others nothing. A file is an npy of records, one per channel:
    the largest magnitude, float16, and the integers; value = integer * largest / 127.
    """

    name = "int8"
    floor = 0.998

    def quantise(self, maps: Tensor) -> NDArray[Any]:
        """Round each channel of each map to 255 steps between minus and plus its largest magnitude."""
        # float16 first, so that the stored magnitude is exact and no integer leaves -127 to 127.
        rounded = maps.to(torch.float16)
        largest = rounded.abs().flatten(2).amax(2)  # (B, C)
        factor = torch.where(largest > 0, _STEPS / largest.float(), 0.0)
        integers = (rounded.float() * factor[..., None, None]).round().to(torch.int8)
        records = np.empty(largest.shape, _int8_record(maps.shape[2], maps.shape[3]))
        records["largest"] = largest.cpu().numpy()
        records["integers"] = integers.cpu().numpy()
        return records

    def unpack(self, data: bytes) -> Map:
        """Multiply the integers by their channel's scale."""
        records = _read_npy(data, None)
        fields: Any = records.dtype.fields or {}
        if set(fields) != {"largest", "integers"} or records.dtype != _int8_record(*fields["integers"][0].shape):
            raise ValueError(f"dtype {records.dtype}")
        scale = records["largest"].astype(np.float32) / _STEPS
        values: Map = (records["integers"] * scale[:, None, None]).astype(np.float16)
        return values

    def shape_of(self, values: NDArray[Any]) -> tuple[int, ...]:
        """Return channels and the grid of a record's integers."""
        return (*values.shape, *values["integers"].shape[1:])


class PcaInt8(Codec):
    """Integers along principal axes, all with one step, compressed: about a tenth of float16, cosine 0.99.

    Channels are first divided by their standard deviation, so that a few large ones do not take all of the precision.
    With one step for all axes the weak ones round to 0 most of the time and compress to almost nothing: at equal bytes
    that leaves half of the error of fewer axes with a scale each. A map that leaves 8 bits is stored in 16.

    Args:
        basis: Fitted on a sample of the teacher's maps; kept beside the manifest, which holds its hash.
    """

    name = "pca-int8"
    suffix = ".feature.npy.zst"
    floor = 0.99

    def __init__(self, basis: Basis) -> None:
        self.basis = basis

    def quantise(self, maps: Tensor) -> NDArray[Any]:
        """Project and round."""
        batch, channels, height, width = maps.shape
        flat = self.basis.project(maps.float().flatten(2).transpose(1, 2).reshape(-1, channels))
        integers = flat.round().clamp(-32768, 32767).to(torch.int16)
        return integers.reshape(batch, height * width, channels).transpose(1, 2).cpu().numpy().reshape(maps.shape)

    def pack(self, values: NDArray[Any]) -> list[bytes | memoryview]:
        """Store in 8 bits where that is enough, and compress."""
        fits = np.abs(values.astype(np.int32)).max() <= _STEPS
        import zstandard

        head, numbers = super().pack(values.astype("<i1" if fits else "<i2"))
        # Blocks of neighbouring axes, each with a Huffman table of its own: strong axes need another than weak ones.
        stream = self._compressor.compressobj(size=len(head) + len(numbers))
        parts = [stream.compress(head)]
        for begin in range(0, len(numbers), _BLOCK):
            parts += stream.compress(numbers[begin : begin + _BLOCK]), stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        return [b"".join([*parts, stream.flush()])]

    def unpack(self, data: bytes) -> Map:
        """Decompress and go back along the axes."""
        import zstandard

        try:
            plain = self._decompressor.decompress(data, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        integers = _read_npy(plain, (np.dtype("<i1"), np.dtype("<i2")))
        if integers.ndim != 3 or len(integers) != self.basis.channels:
            raise ValueError(f"shape {integers.shape}")
        flat = torch.from_numpy(integers.reshape(len(integers), -1).astype(np.float32))  # (C, h*w)
        restored = self.basis.restore(flat.T).T.reshape(integers.shape)
        values: Map = restored.clamp(-_LARGEST, _LARGEST).to(torch.float16).numpy()
        return values

    def shape_of(self, values: NDArray[Any]) -> tuple[int, ...]:
        """Return the array's own shape: there are as many axes as channels."""
        return values.shape

    # Imported at the first use: whoever stores float16 needs no zstd. Level 3 is 5 % larger; 19 is 5 % smaller and far
    # slower.
    @cached_property
    def _compressor(self) -> Any:
        import zstandard

        return zstandard.ZstdCompressor(level=9)

    @cached_property
    def _decompressor(self) -> Any:
        import zstandard

        return zstandard.ZstdDecompressor()

    def __getstate__(self) -> dict[str, Any]:
        return {"basis": self.basis}  # (de)compressors do not travel to other processes


FLOAT16 = Float16()
CODECS: dict[str, type[Codec]] = {codec.name: codec for codec in (Float16, Int8, PcaInt8)}


def _int8_record(height: int, width: int) -> np.dtype[Any]:
    return np.dtype([("largest", "<f2"), ("integers", "i1", (height, width))])


def _read_npy(data: bytes, dtypes: Sequence[np.dtype[Any]] | None) -> NDArray[Any]:
    """Read an npy as np.load(allow_pickle=False) does, but as a view of `data`, and only of the given types.

    Raises:
        ValueError: It is something else.
    """
    stream = io.BytesIO(data[:4096])
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("not npy 1.0")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    expected = stream.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    known = not dtype.hasobject if dtypes is None else dtype in dtypes
    if not known or fortran_order or len(data) != expected:
        raise ValueError(f"dtype {dtype}, {len(data)} of {expected} bytes")
    return np.frombuffer(data, dtype=dtype, offset=stream.tell()).reshape(shape)
