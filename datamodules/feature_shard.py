"""One feature shard: a teacher's maps of one image shard, float16, whole or absent, random access.

A feature shard is a tar with one ``<key>.feature.npy`` of shape (C, h, w) per sample, in the order of the image shard
of the same name, so WebDataset reads it too. Headers are fixed and carry no time: equal maps give equal bytes.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.cache_manifest import CacheIdentity, FeatureShardEntry, write_ledger
from datamodules.errors import CacheError
from datamodules.files import sync_directory

SUFFIX = ".feature.npy"
_LARGEST = float(np.finfo(np.float16).max)  # 65504
REDO_SHARD = "Delete {} and run `pl-distill predict` again: only this shard is made anew."

Map = NDArray[np.float16]
"""One trunk map, shape (C, h, w)."""


def to_float16(maps: Tensor, keys: Sequence[str]) -> NDArray[np.float16]:
    """Round maps (B, C, h, w) of any floating type to float16 on the CPU.

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
    return maps.to(torch.float16).cpu().numpy()


class FeatureShardWriter:
    """Writes one feature shard under a temporary name; `commit` syncs, renames and enters it into the ledger.

    Used as a context manager: leaving it without `commit` deletes what was written.

    Args:
        cache: The cache's folder.
        file: Path of the shard in it, ``train/train-000000.tar``.
        samples: Maps that the shard must get.
        image_sha256: Of the image shard of that name.
        identity: Who makes the maps.
    """

    def __init__(self, cache: Path, file: str, *, samples: int, image_sha256: str, identity: CacheIdentity) -> None:
        self.file = file
        self._cache, self._samples, self._image_sha256, self._identity = cache, samples, image_sha256, identity
        self._path = cache / file
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in self._path.parent.glob(f".{self._path.name}.partial*"):  # of a run that was killed
            leftover.unlink()
        self._temporary = self._path.with_name(f".{self._path.name}.partial")
        self._stream = self._temporary.open("wb")
        self._digest = hashlib.sha256()
        self._written = 0
        self._shape: tuple[int, ...] | None = None

    def append(self, key: str, feature_map: Map) -> None:
        """Add the next sample's map, (C, h, w) float16.

        Raises:
            CacheError: Its shape differs from that of the maps before it.
        """
        self._shape = self._shape or feature_map.shape
        if feature_map.ndim != 3 or feature_map.shape != self._shape:
            raise CacheError(
                f"{self.file}, sample {key}",
                f"has a teacher map of shape {feature_map.shape}",
                f"(C, h, w), the same for all: {self._shape}",
                "Cache with one teacher at one image size.",
            )
        head = io.BytesIO()
        contiguous = np.ascontiguousarray(feature_map, dtype="<f2")
        np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(contiguous))
        member = tarfile.TarInfo(key + SUFFIX)  # its other fields are constants: mode 0644, time 0, no owner
        member.size = head.tell() + contiguous.nbytes
        # Not through webdataset.TarWriter, which copies each map twice and writes it in pieces of 10 kB.
        self._write(member.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
        self._write(head.getbuffer())
        self._write(contiguous.data.cast("B"))
        self._write(bytes(-member.size % tarfile.BLOCKSIZE))
        self._written += 1

    def commit(self) -> FeatureShardEntry:
        """Finish the shard.

        Raises:
            CacheError: It did not get as many maps as the image shard has samples.
        """
        if self._written != self._samples or self._shape is None:
            raise CacheError(
                self._path,
                f"got {self._written} maps",
                f"{self._samples}, one per sample",
                "Run `pl-distill predict` again.",
            )
        self._write(bytes(2 * tarfile.BLOCKSIZE))  # the end of a tar
        self._stream.flush()
        os.fsync(self._stream.fileno())
        size = self._stream.tell()
        self._stream.close()
        self._temporary.replace(self._path)
        sync_directory(self._path.parent)
        channels, height, width = self._shape
        entry = FeatureShardEntry(
            self.file, self._digest.hexdigest(), size, self._written, (channels, height, width), self._image_sha256
        )
        write_ledger(self._cache, entry, self._identity)
        return entry

    def close(self) -> None:
        """Delete what was written, unless it was committed."""
        self._stream.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> "FeatureShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._stream.write(data)


class FeatureShard:
    """Random access to the maps of one feature shard; may be handed to worker processes.

    Args:
        path: The tar.
        samples: Maps that it must hold.

    Raises:
        CacheError: At the first access: it is missing, cut off, or holds something else.
    """

    def __init__(self, path: Path, samples: int) -> None:
        self.path = path
        self._samples = samples
        self._members: list[tuple[str, int, int]] = []  # key, offset and size of its npy
        self._descriptor: int | None = None

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> tuple[str, Map]:
        """Return key and map of one sample; the map is read-only."""
        if self._descriptor is None:
            self._open()
        assert self._descriptor is not None
        key, offset, size = self._members[index]
        data = os.pread(self._descriptor, size, offset)
        return key, self._decode(data, key, size)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_descriptor": None}  # a file descriptor means nothing in a spawned worker

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _open(self) -> None:
        try:
            with tarfile.open(self.path) as tar:
                members = [(one.name.removesuffix(SUFFIX), one.offset_data, one.size) for one in tar]
        except (OSError, tarfile.TarError) as error:
            raise self._damaged(f"cannot be read ({error})", f"a tar of {self._samples} maps") from error
        if len(members) != self._samples:
            raise self._damaged(f"has {len(members)} maps", f"{self._samples}")
        self._members = members
        self._descriptor = os.open(self.path, os.O_RDONLY)

    def _decode(self, data: bytes, key: str, size: int) -> Map:
        # As np.load(allow_pickle=False), but without copying the map twice: a view of the bytes read, of one type.
        stream = io.BytesIO(data[:1024])
        try:
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError("not npy 1.0")
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
            if dtype != np.float16 or fortran_order or len(data) != size:
                raise ValueError(f"dtype {dtype}, {len(data)} of {size} bytes")
            return np.frombuffer(data, dtype=np.float16, offset=stream.tell()).reshape(shape)
        except ValueError as error:
            raise self._damaged(f"holds something else for sample {key} ({error})", "a float16 npy") from error

    def _damaged(self, found: str, expected: str) -> CacheError:
        return CacheError(self.path, found, expected, REDO_SHARD.format(self.path))
