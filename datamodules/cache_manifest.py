"""What a feature cache says about itself: who made it, from which images, what is finished.

Each finished shard has a ledger entry beside it; `manifest.json` gathers them once all are there. A peer's export that
stores neither survives no kill and cannot tell a stale cache (github.com/SimonZeng7108/efficientsam3,
stage1/save_embedding_image_stage1.py).
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datamodules.errors import CacheError
from datamodules.files import write_json
from datamodules.splits import PARTS, Part

SCHEMA = 1
MANIFEST = "manifest.json"
_REDO = "Give another cache folder (--data.cache), or delete this one and run `pl-distill predict` again."
_NOT_MINE = "Give the folder that `pl-distill predict` wrote, by default SHARDS-features."


@dataclass(frozen=True)
class CacheIdentity:
    """Everything that decides the values of a cached map, apart from the images.

    Args:
        trunk_sha256: Over names and bytes of the trunk's tensors.
        preprocessing: `datamodules.preprocessing.Preprocessing.describe`.
        precision: Lightning's name of the compute type, ``32-true`` or ``bf16-mixed``.
        attention: Attention kernel of the trunk, ``sdpa`` or ``eager``.
        libraries: Versions by name. They bind the writer, a cache is made by one set; a reader does not ask.
        teacher: Where the weights came from, for people; not compared.
        level: Which map of the teacher.
        codec: How a map is stored, a name of `datamodules.codecs.CODECS`.
        basis_sha256: Of the file that the codec's basis is in; "" for a codec without one.
        views: `datamodules.cached_views.CachedViews.describe`: which parts of each training frame the teacher saw.
        trunk_settings: What the trunk computes by its configuration and no tensor shows; empty in caches of versions
            that did not ask, which are taken without.
    """

    trunk_sha256: str
    preprocessing: Mapping[str, Any]
    precision: str
    attention: str
    libraries: Mapping[str, str]
    teacher: str
    level: str = "trunk"
    codec: str = "float16"
    basis_sha256: str = ""
    views: Mapping[str, Any] = field(default_factory=lambda: {"count": 1})
    trunk_settings: Mapping[str, Any] = field(default_factory=dict)

    def require(self, expected: "CacheIdentity", where: Path, *, same_libraries: bool) -> None:
        """Refuse a cache that others than the expected teacher and preprocessing have made.

        Raises:
            CacheError: Names the first thing in which this identity, found in `where`, differs.
        """
        for name, meaning in _MEANINGS.items():
            found, wanted = getattr(self, name), getattr(expected, name)
            if name == "trunk_settings" and not (found and wanted):
                continue
            if found != wanted and (name != "libraries" or same_libraries):
                if name == "trunk_sha256":
                    found, wanted = f"{found} ({self.teacher})", f"{wanted} ({expected.teacher})"
                raise CacheError(where, f"was made with {meaning} {_brief(found)}", _brief(wanted), _REDO)


_MEANINGS = {
    "trunk_sha256": "a teacher whose trunk has SHA-256",
    "trunk_settings": "a trunk of",
    "preprocessing": "the preprocessing",
    "level": "the level",
    "codec": "the codec",
    "basis_sha256": "a basis of SHA-256",
    "views": "the views",
    "precision": "the precision",
    "attention": "the attention kernel",
    "libraries": "the library versions",
}


def _brief(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value) or "none"


@dataclass(frozen=True)
class FeatureShardEntry:
    """One finished feature shard.

    Args:
        file: Path within the cache, the same as that of the image shard within its folder: ``train/train-000000.tar``.
        sha256: Of the feature shard's bytes.
        bytes: Its size.
        samples: Frames in it.
        shape: C, h, w of each map.
        image_sha256: Of the image shard it was made from.
        views: Maps of each frame.
    """

    file: str
    sha256: str
    bytes: int
    samples: int
    shape: tuple[int, int, int]
    image_sha256: str
    views: int = 1


def _ledger_path(cache: Path, file: str) -> Path:
    return (cache / file).with_suffix(".json")


def write_ledger(cache: Path, entry: FeatureShardEntry, identity: CacheIdentity) -> None:
    """Record that a shard is finished; its tar must already have its final name."""
    write_json(
        _ledger_path(cache, entry.file), {"schema": SCHEMA, "identity": asdict(identity), "shard": asdict(entry)}
    )


def read_ledger(cache: Path, file: str) -> tuple[FeatureShardEntry, CacheIdentity] | None:
    """Return what the ledger says about a shard, or None where it is not finished.

    A tar without an entry is not finished (the kill came between the two), nor is an entry whose tar is gone or has
    another size.

    Raises:
        CacheError: The entry cannot be read.
    """
    path = _ledger_path(cache, file)
    if not path.exists():
        return None
    content = _read(path)
    try:
        entry, identity = _entry(content["shard"]), CacheIdentity(**content["identity"])
    except (KeyError, TypeError, ValueError) as error:
        raise CacheError(
            path, f"is not a ledger entry ({error})", "the keys of schema 1", f"Delete it: {file} will be made again."
        ) from error
    tar = cache / file
    return (entry, identity) if tar.exists() and tar.stat().st_size == entry.bytes else None


@dataclass(frozen=True)
class CacheManifest:
    """What `manifest.json` holds: a cache whose every shard is finished.

    Args:
        identity: Who made it.
        shape: C, h, w of every map.
        splits: Split name -> its shards in the order of the image shards.
    """

    identity: CacheIdentity
    shape: tuple[int, int, int]
    splits: Mapping[Part, tuple[FeatureShardEntry, ...]]

    @property
    def samples(self) -> int:
        """Frames in all splits."""
        return sum(entry.samples for shards in self.splits.values() for entry in shards)

    @property
    def bytes(self) -> int:
        """Size of all feature shards."""
        return sum(entry.bytes for shards in self.splits.values() for entry in shards)

    def save(self, cache: Path) -> None:
        """Write the manifest, whole or not at all."""
        content = {"schema": SCHEMA, "identity": asdict(self.identity), "shape": list(self.shape)}
        splits = {split: [asdict(entry) for entry in shards] for split, shards in self.splits.items()}
        write_json(cache / MANIFEST, {**content, "samples": self.samples, "bytes": self.bytes, "splits": splits})

    @classmethod
    def load(cls, cache: Path) -> "CacheManifest":
        """Read the manifest of a finished cache.

        Raises:
            CacheError: There is none, or it is not one.
        """
        path = cache / MANIFEST
        if not path.exists():
            started = (
                "is unfinished: it has shards but no manifest" if any(cache.glob("*/*.tar")) else "has no manifest"
            )
            raise CacheError(
                cache,
                started,
                "manifest.json of a finished cache",
                "Run `pl-distill predict`; it goes on where it stopped.",
            )
        content = _read(path)
        try:
            cached = content["splits"]
            splits = {part: tuple(_entry(one) for one in cached[part]) for part in PARTS if part in cached}
            channels, height, width = content["shape"]
            for part, shards in splits.items():
                for shard in shards:
                    if not re.fullmatch(rf"{part}/{part}-\d{{6}}\.tar", shard.file):  # nothing outside is read or named
                        raise ValueError(f"names the shard {shard.file!r}")
            return cls(CacheIdentity(**content["identity"]), (channels, height, width), splits)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CacheError(path, f"is not a cache manifest ({error})", "the keys of schema 1", _NOT_MINE) from error


def gather_manifest(cache: Path, splits: Mapping[Part, Iterable[str]]) -> CacheManifest | None:
    """Join the ledger entries of all shards into a manifest, or return None while one is missing.

    Args:
        cache: The cache's folder.
        splits: Split name -> files of its image shards, in order.

    Raises:
        CacheError: The shards differ in the shape of their maps or in who made them.
    """
    found: dict[Part, tuple[FeatureShardEntry, ...]] = {}
    first: tuple[FeatureShardEntry, CacheIdentity] | None = None
    for split, files in splits.items():
        entries = []
        for file in files:
            record = read_ledger(cache, file)
            if record is None:
                return None
            entry, identity = record
            first = first or record
            identity.require(first[1], cache / file, same_libraries=True)
            if entry.shape != first[0].shape:
                raise CacheError(cache / file, f"has maps of shape {entry.shape}", f"{first[0].shape}", _REDO)
            entries.append(entry)
        found[split] = tuple(entries)
    return CacheManifest(first[1], first[0].shape, found) if first else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CacheError(
            path, f"cannot be read as JSON ({error})", "a file written by `pl-distill predict`", _REDO
        ) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        schema = content.get("schema") if isinstance(content, dict) else None
        raise CacheError(path, f"has schema {schema}", f"{SCHEMA}", _REDO)
    return content


def _entry(content: Mapping[str, Any]) -> FeatureShardEntry:
    channels, height, width = content["shape"]
    return FeatureShardEntry(**{**content, "shape": (channels, height, width)})
