"""Clips out of shards: the same type that the readers of recordings give, so that evaluation does not care."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from datamodules.clip import Annotation, Clip, Image
from datamodules.errors import ShardError
from datamodules.image_shards import ImageShards
from datamodules.shard_index import IndexedShard
from datamodules.shard_manifest import ShardEntry
from datamodules.shard_sample import sample_key
from datamodules.splits import Part


@dataclass(frozen=True)
class ShardFrames:
    """A clip's pictures, decoded one at a time from the shards it lies in. A `datamodules.clip.FrameSource`.

    Args:
        shards: Where they are; of a URL a shard is brought here again if its copy has made room since.
        runs: Shard, number of its first sample of the clip, number of samples; in order.
    """

    shards: ImageShards
    runs: tuple[tuple[ShardEntry, IndexedShard, int, int], ...]

    def __iter__(self) -> Iterator[Image]:
        for entry, shard, first, count in self.runs:
            with closing(self.shards.hold(entry)):
                for number in range(first, first + count):
                    yield shard.image(number)


def read_shard_clips(shards: str | Path | ImageShards, split: Part) -> list[Clip]:
    """Read the clips of one part, in the order in which they lie; labels now, pictures when iterated.

    Args:
        shards: What `write_shards` wrote; a path or URL, or already opened.
        split: ``train``, ``val`` or ``test``.

    Raises:
        ShardError: A shard is missing or damaged, or is not what the manifest says.
        RemoteError: A shard of a URL cannot be read.
    """
    opened = shards if isinstance(shards, ImageShards) else ImageShards(shards)
    runs: dict[str, list[tuple[ShardEntry, IndexedShard, int, int]]] = {}
    annotations: dict[str, dict[int, Annotation]] = {}
    for entry in opened.manifest.splits[split]:
        with closing(opened.hold(entry)) as copy:
            shard = IndexedShard(copy.path)
            expected = [
                (segment.clip, segment.first_frame + offset)
                for segment in entry.clips
                for offset in range(segment.frames)
            ]
            check_keys(shard, [sample_key(clip, index) for clip, index in expected])
            number = 0
            for segment in entry.clips:
                runs.setdefault(segment.clip, []).append((entry, shard, number, segment.frames))
                number += segment.frames
            for number, (clip, index) in enumerate(expected):
                animals = shard.record(number).annotation
                if animals is not None:
                    annotations.setdefault(clip, {})[index] = animals
    clips = []
    for name, pieces in runs.items():
        entry_of_clip = opened.manifest.clips[name]
        clips.append(
            Clip(
                name=name,
                day=entry_of_clip.day,
                fps=entry_of_clip.fps,
                width=entry_of_clip.width,
                height=entry_of_clip.height,
                num_frames=entry_of_clip.frames,
                source=ShardFrames(opened, tuple(pieces)),
                annotations=annotations.get(name, {}),
            )
        )
    return clips


def check_keys(shard: IndexedShard, expected: list[str]) -> None:
    """Refuse a shard whose samples are not the expected ones in their order."""
    if len(shard) != len(expected):
        raise ShardError(
            shard.path,
            f"holds {len(shard)} samples",
            f"{len(expected)}, as the manifest says",
            "Copy this shard again, or write the shards again.",
        )
    for number, (found, key) in enumerate(zip(shard.keys, expected, strict=True)):
        if found != key:
            raise ShardError(
                f"{shard.path}, sample {number}",
                f"is {found}",
                f"{key}, as the manifest says",
                "Shard and manifest are of different runs: write the shards again.",
            )
