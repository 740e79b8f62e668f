"""Random access to the samples of one tar, without unpacking it.

WebDataset reads a shard from its first byte to its last, so that an exact order, equal steps per rank and a resume
in the middle of an epoch have to be worked around (github.com/webdataset/webdataset/issues/177, 434). Uncompressed
tars can be read at any sample: their headers are walked once and the offsets kept.
"""

import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

from datamodules.clip import Image
from datamodules.errors import ShardError
from datamodules.images import decode_image
from datamodules.shard_sample import Sample, SampleRecord

MEMBER = re.compile(r"(?P<key>[A-Za-z0-9_-]+)\.(?P<suffix>[A-Za-z0-9_.]+)")


class ShardIndex:
    """Where the members of each sample lie in an uncompressed tar.

    Nothing is ever extracted, and only regular files with plain names are accepted: a tar from elsewhere cannot
    write to, or read from, any other path. Pickles and forks freely: the file is opened for each read.

    Args:
        path: The tar.
        suffixes: What each sample consists of: ``("jpg", "json")``.

    Attributes:
        keys: Names of the samples, in order.

    Raises:
        ShardError: The tar is missing, damaged, or a sample lacks a member or has one too many.
    """

    def __init__(self, path: str | Path, suffixes: Sequence[str]) -> None:
        self.path = Path(path)
        found = self._walk(set(suffixes))
        for key, members in found.items():
            if len(members) != len(suffixes):
                missing = ", ".join(f"{key}.{suffix}" for suffix in suffixes if suffix not in members)
                raise self._damaged(
                    f"sample {key}", f"lacks {missing}", f"a {' and a '.join(suffixes)} for each sample"
                )
        self.keys = tuple(found)
        self._members = list(found.values())

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, number: int, suffix: str) -> bytes:
        """Return the bytes of one member of sample `number`, which counts from 0."""
        offset, size = self._members[number][suffix]
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def _walk(self, suffixes: set[str]) -> dict[str, dict[str, tuple[int, int]]]:
        found: dict[str, dict[str, tuple[int, int]]] = {}
        last = ""
        try:
            size = self.path.stat().st_size
            with tarfile.open(self.path, "r:") as tar:
                for member in tar:
                    match = MEMBER.fullmatch(member.name)
                    if match is None or not member.isreg() or match["suffix"] not in suffixes:
                        expected = " or ".join(f"<key>.{suffix}" for suffix in sorted(suffixes))
                        raise self._damaged(
                            f"member {member.name!r}", "does not belong there", f"plain files {expected}"
                        )
                    key, suffix = match["key"], match["suffix"]
                    if (key in found and key != last) or suffix in found.get(key, {}):
                        raise self._damaged(f"sample {key}", "occurs twice", "each sample once, its members together")
                    if member.offset_data + member.size > size:
                        raise self._damaged(f"sample {key}", "is cut off by the end of the file", "a whole tar")
                    found.setdefault(key, {})[suffix] = (member.offset_data, member.size)
                    last = key
        except FileNotFoundError as error:
            raise self._damaged("the file", "is not there", "the shard that the manifest names") from error
        except (tarfile.TarError, EOFError) as error:
            raise self._damaged("the file", f"cannot be read ({error})", "an uncompressed tar") from error
        return found

    def _damaged(self, what: str, found: str, expected: str) -> ShardError:
        return ShardError(f"{self.path}, {what}", found, expected, "Copy this shard again, or write the shards again.")


class IndexedShard:
    """The samples of one image shard, by number.

    Args:
        path: The tar.

    Attributes:
        keys: Names of the samples, in order.

    Raises:
        ShardError: The tar is damaged; also from reading a sample.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._index = ShardIndex(self.path, ("jpg", "json"))
        self.keys = self._index.keys

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> Sample:
        record = self.record(number)
        key = self.keys[number]
        return Sample(key, record.clip, record.index, record.timestamp_s, self.image(number), record.annotation)

    def record(self, number: int) -> SampleRecord:
        """Read a sample's labels without its picture."""
        return SampleRecord.from_json(self._where(number), self._index.read(number, "json"))

    def image(self, number: int) -> Image:
        """Decode a sample's picture: RGB, (H, W, 3) uint8."""
        try:
            return decode_image(self._index.read(number, "jpg"))
        except ValueError as error:
            raise ShardError(
                self._where(number), f"its picture cannot be decoded ({error})", "a whole JPEG",
                "Copy this shard again, or write the shards again.",
            ) from error  # fmt: skip

    def _where(self, number: int) -> str:
        return f"{self.path}, sample {self.keys[number]}"


def open_shard(path: Path, samples: int) -> IndexedShard:
    """Open an image shard that has as many samples as its manifest says.

    Raises:
        ShardError: It is missing, damaged, or has more or fewer.
    """
    shard = IndexedShard(path)
    if len(shard) != samples:
        raise ShardError(
            path,
            f"has {len(shard)} samples",
            f"{samples} as its manifest says",
            "Copy this shard again, or write the shards again.",
        )
    return shard
