"""One feature shard: a teacher's maps of one image shard, whole or absent, random access.

A feature shard is a tar with one ``<key>.feature.npy`` of shape (C, h, w) per sample, in the order of the image shard
of the same name, so WebDataset reads it too; codecs other than float16 store other members (`datamodules.codecs`).
Where a frame has several views, the maps of the later ones follow as ``<key>.v1.feature.npy`` and so on.
Headers are fixed and carry no time: equal maps give equal bytes.
"""

import hashlib
import os
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from datamodules.background import BackgroundQueue
from datamodules.cache_manifest import CacheIdentity, FeatureShardEntry, write_ledger
from datamodules.codecs import FLOAT16, Codec, Map
from datamodules.errors import CacheError
from datamodules.files import sha256_of, sync_directory, temporary_path

REDO_SHARD = "Delete {} and run `pl-distill predict` again: only this shard is made anew."


class FeatureShardWriter:
    """Writes one feature shard under a temporary name; `commit` syncs, renames and enters it into the ledger.

    Used as a context manager: leaving it without `commit` deletes what was written.

    Args:
        cache: The cache's folder.
        file: Path of the shard in it, ``train/train-000000.tar``.
        samples: Frames in the image shard of that name.
        image_sha256: Of the image shard.
        identity: Who makes the maps.
        codec: How they are stored.
        views: Maps that each frame must get.
    """

    def __init__(
        self,
        cache: Path,
        file: str,
        *,
        samples: int,
        image_sha256: str,
        identity: CacheIdentity,
        codec: Codec = FLOAT16,
        views: int = 1,
    ) -> None:
        self.file = file
        self._codec, self._views = codec, views
        self._cache, self._samples, self._image_sha256, self._identity = cache, samples, image_sha256, identity
        self._path = cache / file
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in self._path.parent.glob(f".{self._path.name}.partial*"):  # of a run that was killed
            leftover.unlink(missing_ok=True)  # another writer of this shard may be quicker
        # A name of its own: a writer that was given up for lost may still be at work on the same shard.
        self._temporary = temporary_path(self._path)
        self._stream = self._temporary.open("wb")
        self._digest = hashlib.sha256()
        # A thread hashes what is being written: either alone takes about as long as the other.
        self._hashing: BackgroundQueue[bytes | memoryview] = BackgroundQueue(
            self._digest.update,
            size=16,  # four maps, each of two headers, numbers and padding; with one the writer waits more often
            name="feature cache hash",
        )
        self._written = 0
        self._on_its_way = 0  # bytes of the file that the kernel has been told to write
        self._shape: tuple[int, ...] | None = None

    def append(self, key: str, values: NDArray[Any]) -> None:
        """Add the next map, of the next view of a frame or of the next frame's first.

        Args:
            key: Name of the frame.
            values: What the codec's `quantise` gave for the map; of float16 the map itself, (C, h, w).

        Raises:
            CacheError: Its shape differs from that of the maps before it.
        """
        shape = self._codec.shape_of(values)
        self._shape = self._shape or shape
        if len(shape) != 3 or shape != self._shape:
            raise CacheError(
                f"{self.file}, sample {key}",
                f"has a teacher map of shape {shape}",
                f"(C, h, w), the same for all: {self._shape}",
                "Cache with one teacher at one image size.",
            )
        parts = self._codec.pack(values)
        view = self._written % self._views
        member = tarfile.TarInfo(f"{key}{f'.v{view}' if view else ''}{self._codec.suffix}")
        member.size = sum(len(part) for part in parts)  # its other fields are constants: mode 0644, time 0, no owner
        # Not through webdataset.TarWriter, which copies each map twice and writes it in pieces of 10 kB.
        self._write(member.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
        for part in parts:
            self._write(part)
        self._write(bytes(-member.size % tarfile.BLOCKSIZE))
        self._start_writeback()
        self._written += 1

    def commit(self) -> FeatureShardEntry:
        """Finish the shard.

        Raises:
            CacheError: It did not get as many maps as the image shard has frames, times their views.
        """
        if self._written != self._samples * self._views or self._shape is None:
            raise CacheError(
                self._path,
                f"got {self._written} maps",
                f"{self._samples * self._views}, {'one' if self._views == 1 else self._views} per sample",
                "Run `pl-distill predict` again.",
            )
        self._write(bytes(2 * tarfile.BLOCKSIZE))  # the end of a tar
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._hashing.drain()
        self._hashing.close()  # or a thread would stay for every shard
        size = self._stream.tell()
        self._stream.close()
        self._move_into_place()
        sync_directory(self._path.parent)
        channels, height, width = self._shape
        entry = FeatureShardEntry(
            self.file,
            self._digest.hexdigest(),
            size,
            self._samples,
            (channels, height, width),
            self._image_sha256,
            self._views,
        )
        write_ledger(self._cache, entry, self._identity)
        return entry

    def close(self) -> None:
        """Delete what was written, unless it was committed."""
        self._hashing.close()
        self._stream.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> "FeatureShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _move_into_place(self) -> None:
        """Give the file its name, unless another writer of the same shard took it for a leftover and was done first.

        Raises:
            CacheError: It is gone, and what stands in its place is none or another.
        """
        try:
            self._temporary.replace(self._path)
        except FileNotFoundError:
            if not self._path.exists() or sha256_of(self._path) != self._digest.hexdigest():
                found = "was deleted by another process that writes the same shard"
                fix = "Wait until that has ended, then run `pl-distill predict` again."
                raise CacheError(self._temporary, found, "one writer of a shard", fix) from None

    def _start_writeback(self) -> None:
        # Left alone the kernel waits until gigabytes are dirty; the sync in `commit` would then wait for all of them.
        end = self._stream.tell()
        os.posix_fadvise(self._stream.fileno(), self._on_its_way, end - self._on_its_way, os.POSIX_FADV_DONTNEED)
        self._on_its_way = end

    def _write(self, data: bytes | memoryview) -> None:
        self._hashing.put(data)
        self._stream.write(data)


class FeatureShard:
    """Random access to the maps of one feature shard; may be handed to worker processes.

    Args:
        path: The tar.
        samples: Frames whose maps it must hold.
        codec: How they are stored.
        views: Maps of each frame.

    Raises:
        CacheError: At the first access: it is missing, cut off, or holds something else.
    """

    def __init__(self, path: Path, samples: int, codec: Codec = FLOAT16, views: int = 1) -> None:
        self.path = path
        self.views = views
        self._samples = samples
        self._codec = codec
        self._members: list[tuple[str, int, int]] = []  # key, offset and size of its npy
        self._descriptor: int | None = None

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> tuple[str, Map]:
        """Return key and map of one sample's first view; the map may be read-only."""
        return self.map(index, 0)

    def map(self, sample: int, view: int) -> tuple[str, Map]:
        """Return the key of a sample and the map of one of its views; the map may be read-only."""
        if not (0 <= sample < self._samples and 0 <= view < self.views):
            raise IndexError(f"sample {sample} of {self._samples}, view {view} of {self.views}")
        if self._descriptor is None:
            self._open()
        assert self._descriptor is not None
        key, offset, size = self._members[sample * self.views + view]
        data = os.pread(self._descriptor, size, offset)
        try:
            return key, self._codec.unpack(data)
        except ValueError as error:
            raise self._damaged(
                f"holds something else for sample {key} ({error})", f"a {self._codec.name} map"
            ) from error

    def close(self) -> None:
        """Let go of the file and of what is known of it; the next access opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._members = []

    def __getstate__(self) -> dict[str, object]:
        # A file descriptor means nothing in a spawned worker, which opens the file and reads its headers itself.
        return {**self.__dict__, "_descriptor": None, "_members": []}

    def __del__(self) -> None:
        self.close()

    def _open(self) -> None:
        try:
            with tarfile.open(self.path) as tar:
                members = [(one.name.partition(".")[0], one.offset_data, one.size) for one in tar]
        except (OSError, tarfile.TarError) as error:
            raise self._damaged(f"cannot be read ({error})", f"a tar of {self._samples * self.views} maps") from error
        if len(members) != self._samples * self.views:
            raise self._damaged(f"has {len(members)} maps", f"{self._samples * self.views}")
        self._members = members
        self._descriptor = os.open(self.path, os.O_RDONLY)

    def _damaged(self, found: str, expected: str) -> CacheError:
        return CacheError(self.path, found, expected, REDO_SHARD.format(self.path))
