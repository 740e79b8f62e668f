"""A teacher's feature maps beside the image shards: opened only by those for whom they were made."""

from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.cache_manifest import CacheIdentity, CacheManifest, FeatureShardEntry
from datamodules.codec_basis import Basis
from datamodules.codecs import CODECS, Codec, PcaInt8
from datamodules.errors import CacheError
from datamodules.feature_shard import REDO_SHARD, FeatureShard
from datamodules.files import sha256_of
from datamodules.shard_manifest import ShardEntry, ShardManifest
from datamodules.splits import Part


class FeatureCache:
    """A finished cache.

    Args:
        folder: Holds `manifest.json`.
        manifest: What it says.

    Attributes:
        codec: How its maps are stored.

    Raises:
        CacheError: The codec is unknown, or its basis is missing or another one.
    """

    def __init__(self, folder: Path, manifest: CacheManifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.codec = open_codec(manifest.identity, folder)

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        shards: ShardManifest | None = None,
        expected: CacheIdentity | None = None,
        complete: bool = True,
    ) -> "FeatureCache":
        """Open a cache and see that it is the right one; hashes nothing, see `verify` for that.

        Args:
            folder: The cache.
            shards: The image shards it must have been made from.
            expected: The teacher and preprocessing it must have been made with.
            complete: Whether every shard must be there; not where they are copied from elsewhere when they are read.

        Raises:
            CacheError: It is unfinished, lacks a shard, or belongs to other images, another teacher or preprocessing.
        """
        folder = Path(folder)
        manifest = CacheManifest.load(folder)
        if expected is not None:
            manifest.identity.require(expected, folder, same_libraries=False)
        for split, entries in manifest.splits.items():
            for entry in entries:
                path = folder / entry.file
                size = path.stat().st_size if path.exists() else None
                if complete and size != entry.bytes:
                    found = "is missing" if size is None else f"has {size} bytes"
                    raise CacheError(path, found, f"{entry.bytes} bytes", REDO_SHARD.format(path))
            if shards is not None:
                _require_same_images(folder, entries, shards.splits[split])
        return cls(folder, manifest)

    def shards(self, split: Part) -> list[FeatureShard]:
        """Return the shards of a split in order.

        Raises:
            CacheError: The split was not cached.
        """
        if split not in self.manifest.splits:
            raise CacheError(
                self.folder,
                f"has the splits {', '.join(self.manifest.splits)}",
                split,
                f"Run `pl-distill predict` with {split} in --data.splits; what is cached stays.",
            )
        return [
            FeatureShard(self.folder / entry.file, entry.samples, self.codec, entry.views)
            for entry in self.manifest.splits[split]
        ]

    def verify(self, progress: Callable[[int], object] = lambda _: None) -> None:
        """Compare every shard's SHA-256 with the manifest; reads the whole cache.

        Args:
            progress: Called after each shard with its size in bytes.

        Raises:
            CacheError: A shard has changed since it was written.
        """
        for entries in self.manifest.splits.values():
            for entry in entries:
                path = self.folder / entry.file
                found = sha256_of(path)
                if found != entry.sha256:
                    raise CacheError(path, f"has SHA-256 {found}", entry.sha256, REDO_SHARD.format(path))
                progress(entry.bytes)


def open_codec(identity: CacheIdentity, cache: Path) -> Codec:
    """Return the codec that a cache's identity names, with its basis where it has one.

    Raises:
        CacheError: There is no such codec, or the basis is missing or another one.
    """
    kind = CODECS.get(identity.codec)
    if kind is None:
        raise CacheError(
            cache, f"was made with the codec {identity.codec}", ", ".join(CODECS), "Read it with a newer version."
        )
    return PcaInt8(Basis.load(cache, identity.basis_sha256)) if kind is PcaInt8 else kind()


def require_same_image_shard(where: Path, entry: FeatureShardEntry, image: ShardEntry | None) -> None:
    """Refuse maps that were made from other pictures than those of `image`; None where there is no such shard.

    Raises:
        CacheError: They were; names `where`.
    """
    if image is None or image.sha256 != entry.image_sha256 or image.samples != entry.samples:
        raise CacheError(
            where,
            f"was made from an image shard with SHA-256 {entry.image_sha256}",
            "no shard of that name" if image is None else image.sha256,
            "The images were drawn or exported anew: give a new cache folder and run `pl-distill predict` again.",
        )


def _require_same_images(folder: Path, entries: Sequence[FeatureShardEntry], images: Sequence[ShardEntry]) -> None:
    by_file = {image.file: image for image in images}
    for entry in entries:
        require_same_image_shard(folder / entry.file, entry, by_file.pop(entry.file, None))
    for file in by_file:
        raise CacheError(
            folder, f"has no maps for {file}", "every image shard of the split", "Run `pl-distill predict` again."
        )
