"""`manifest.json` of a shard folder: what each shard and each clip is, and by which split they were divided.

Written last, so that a folder with a manifest is complete. The fields are those of the classes below and ``"schema"``.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from datamodules.errors import ShardError
from datamodules.files import write_json
from datamodules.shard_plan import Segment
from datamodules.splits import PARTS, Part

SCHEMA = 1
FILE = "manifest.json"
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class ShardEntry:
    """One tar.

    Args:
        file: Path below the folder: ``train/train-000000.tar``.
        sha256: Of the file.
        bytes: Size of the file.
        samples: How many frames it holds.
        clips: Which frames those are, in order.
    """

    file: str
    sha256: str
    bytes: int
    samples: int
    clips: tuple[Segment, ...]


@dataclass(frozen=True)
class ClipEntry:
    """One clip.

    Args:
        day: Recording day, ``YYYY_MM_DD``.
        fps: Frames per second.
        width: Pixels.
        height: Pixels.
        frames: How many.
        split: The part it is in.
        source_sha256: Of its pictures and labels before they were written; a clip drawn or labelled anew has another.
    """

    day: str
    fps: float
    width: int
    height: int
    frames: int
    split: Part
    source_sha256: str


@dataclass(frozen=True)
class ShardManifest:
    """A folder of image shards.

    Args:
        folder: Where `manifest.json` lies.
        split_name: Of the split that divided the clips.
        split_sha256: Of that split; travels into results.
        jpeg_quality: libjpeg's, 1 to 100.
        clips: By name.
        splits: Shards by part, in order; a part may be empty.
    """

    folder: Path
    split_name: str
    split_sha256: str
    jpeg_quality: int
    clips: Mapping[str, ClipEntry]
    splits: Mapping[Part, tuple[ShardEntry, ...]]

    def path(self, shard: ShardEntry) -> Path:
        """Return where a shard lies."""
        return self.folder / shard.file

    def num_samples(self, part: Part) -> int:
        """Return how many frames a part has."""
        return sum(shard.samples for shard in self.splits[part])

    @property
    def sha256(self) -> str:
        """Hash of the content: equal for equal shards, wherever the folder lies."""
        return _sha256(self._content())

    @property
    def recipe_sha256(self) -> str:
        """Hash of what was to be written: as `sha256`, but without the bytes that came of it; known before them."""
        content = self._content()
        del content["split_name"]
        for shards in content["splits"].values():
            for shard in shards:
                del shard["sha256"], shard["bytes"]
        return _sha256({**content, "clips": list(content["clips"].items())})  # a list: the order of clips counts

    def save(self) -> None:
        """Write `manifest.json`, whole or not at all."""
        write_json(self.folder / FILE, self._content())

    @classmethod
    def load(cls, folder: str | Path) -> "ShardManifest":
        """Read `manifest.json`; the shards themselves are looked at by `datamodules.shards.verify_shards`.

        Raises:
            ShardError: It is missing, of another schema, or contradicts itself.
        """
        folder = Path(folder)
        path = folder / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ShardError(
                folder,
                f"holds no {FILE}",
                "a folder written by `pl-distill data shards`, which writes it last",
                "Check the path; if writing was interrupted, run the same command again.",
            ) from error
        except (ValueError, RecursionError) as error:
            raise _damaged(path, f"is not JSON ({error})") from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            found = content.get("schema") if isinstance(content, dict) else content
            raise ShardError(
                path, f"has schema {found!r}", f"schema {SCHEMA}", "Write the shards again with this version."
            )
        try:
            manifest = cls(
                folder=folder,
                split_name=str(content["split_name"]),
                split_sha256=str(content["split_sha256"]),
                jpeg_quality=int(content["jpeg_quality"]),
                clips={name: _typed(ClipEntry, entry) for name, entry in content["clips"].items()},
                splits={part: tuple(map(shard_entry, content["splits"][part])) for part in PARTS},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(path, f"lacks or misspells a field ({type(error).__name__}: {error})") from error
        manifest._check(path)
        return manifest

    def _content(self) -> dict[str, Any]:
        content = asdict(self)
        del content["folder"]
        return {"schema": SCHEMA, **content}

    def _check(self, path: Path) -> None:
        found: dict[str, int] = {}
        for part in PARTS:
            for number, shard in enumerate(self.splits[part]):
                expected = f"{part}/{part}-{number:06d}.tar"  # also keeps a manifest from naming files elsewhere
                if shard.file != expected or not re.fullmatch(r"[0-9a-f]{64}", shard.sha256):
                    raise _damaged(path, f"names shard {shard.file!r} ({shard.sha256!r}) where {expected} should be")
                if shard.samples != sum(segment.frames for segment in shard.clips):
                    raise _damaged(
                        path, f"counts {shard.samples} samples in {shard.file}, but its clips add up to less or more"
                    )
                for segment in shard.clips:
                    clip = self.clips.get(segment.clip)
                    if clip is None or clip.split != part or segment.first_frame != found.get(segment.clip, 0):
                        raise _damaged(
                            path, f"puts {segment.clip} into {shard.file}, out of order or in the wrong part"
                        )
                    found[segment.clip] = segment.first_frame + segment.frames
        for name, clip in self.clips.items():
            if found.get(name, 0) != clip.frames:
                raise _damaged(path, f"counts {clip.frames} frames of {name}, but {found.get(name, 0)} in the shards")


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def shard_entry(content: dict[str, Any]) -> ShardEntry:
    """Read what `dataclasses.asdict` made of an entry; KeyError, TypeError or ValueError where it is none."""
    segments = tuple(_typed(Segment, segment) for segment in cast(list[dict[str, Any]], content["clips"]))
    return _typed(ShardEntry, {**content, "clips": segments})


def _typed(kind: type[Entry], content: dict[str, Any]) -> Entry:
    """Build a dataclass, its texts texts and its numbers finite and not negative."""
    entry = kind(**content)
    for name, annotation in get_type_hints(kind).items():
        value = getattr(entry, name)
        if annotation in (int, float):
            good = type(value) in (int, annotation) and 0 <= value < 2**63
        else:
            good = isinstance(value, tuple if name == "clips" else str)
        if not good:
            raise TypeError(f"{name} is {str(value)[:80]!r}")
    return entry


def _damaged(path: Path, found: str) -> ShardError:
    return ShardError(
        path, found, "what `pl-distill data shards` writes", "Write the shards again, or copy this file again."
    )
