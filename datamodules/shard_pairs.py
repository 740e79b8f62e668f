"""Image shards and their feature shards, brought here from URLs when they are read."""

from collections import OrderedDict
from collections.abc import Sequence

from datamodules.cache_manifest import MANIFEST, CacheManifest, FeatureShardEntry
from datamodules.cache_progress import default_cache
from datamodules.codec_basis import BASIS
from datamodules.feature_cache import FeatureCache
from datamodules.feature_shard import FeatureShard
from datamodules.image_shards import ImageShards, here
from datamodules.local_copies import HeldCopy
from datamodules.remote import LocalCopies, RemoteFolder, is_url
from datamodules.shard_manifest import ShardEntry
from datamodules.splits import Part


class PairFetcher:
    """Makes sure that both tars of a shard are on the local disk, and stay there while they are used.

    Args:
        images: Where the image shards are.
        maps: Where the feature shards are; None where they are local.
        entries: Of both, shard by shard.
        opened: The feature shards, which keep their files open; only those used last may: a process may open some
            thousand files, and deleting a copy that is open frees nothing.
        keep: How many.
    """

    def __init__(
        self,
        images: ImageShards,
        maps: RemoteFolder | None,
        entries: Sequence[tuple[ShardEntry, FeatureShardEntry]],
        opened: Sequence[FeatureShard],
        keep: int,
    ) -> None:
        self._images = images
        self._maps = maps
        self._entries = entries
        self._opened = opened
        self._keep = keep
        self._held: OrderedDict[int, list[HeldCopy]] = OrderedDict()

    def __call__(self, shard: int) -> int | None:
        """Bring a shard here, by its number; what was asked for least recently is let go.

        Returns:
            The number of the shard that was let go: nothing about it need be kept. None: all stay.

        Raises:
            RemoteError: It cannot be read.
        """
        if shard in self._held:
            self._held.move_to_end(shard)
            return None
        oldest = None
        if len(self._held) == self._keep:
            oldest, unused = self._held.popitem(last=False)
            self._opened[oldest].close()
            for copy in unused:
                copy.close()
        image, feature = self._entries[shard]
        copies = [self._images.hold(image)]
        if self._maps is not None:
            copies.append(self._maps.hold(feature.file, size=feature.bytes, sha256=feature.sha256))
        self._held[shard] = copies
        return oldest


class TrainingShards:
    """A folder of image shards and the feature cache beside it, each a path or a URL.

    Args:
        shards: Of the images.
        cache: Of the maps.
        copies: Where copies of remote shards lie.

    Raises:
        ShardError: The image shards are missing or damaged.
        CacheError: The cache is unfinished or was made from other images.
        RemoteError: A URL cannot be read.
    """

    def __init__(self, shards: str, cache: str, copies: LocalCopies) -> None:
        self._images = ImageShards(shards, copies)
        self._maps = copies.remote(cache)
        self.images = self._images.manifest
        folder = here(cache, self._maps, MANIFEST)
        if self._maps is not None and (basis := CacheManifest.load(folder).identity.basis_sha256):
            self._maps.fetch(BASIS, sha256=basis)
        self.cache = FeatureCache.open(folder, shards=self.images, complete=self._maps is None)

    def fetcher(self, part: Part, opened: Sequence[FeatureShard], keep: int) -> PairFetcher:
        """Return what brings the shards of a part here, and closes those of a while ago."""
        pairs = list(zip(self.images.splits[part], self.cache.manifest.splits[part], strict=True))
        return PairFetcher(self._images, self._maps, pairs, opened, keep)


def cache_beside(shards: str) -> str:
    """Return the cache of an image folder unless another is named: ``pen`` -> ``pen-features``, also of a URL."""
    return f"{shards.rstrip('/')}-features" if is_url(shards) else str(default_cache(shards))
