"""What of a cache is still to be made, by which process, and when it is whole.

Each process owns a fixed part of the shards, so that nothing has to be agreed upon while they run, and a rerun makes
only what the ledger does not have.
"""

from collections.abc import Sequence
from pathlib import Path

from datamodules.cache_manifest import MANIFEST, CacheIdentity, CacheManifest, gather_manifest, read_ledger
from datamodules.feature_cache import require_same_image_shard
from datamodules.shard_manifest import ShardEntry, ShardManifest
from datamodules.splits import PARTS, Part


def default_cache(shards: Path | str) -> Path:
    """Return where the cache of an image folder lies unless another place is named: ``pen`` -> ``pen-features``."""
    folder = Path(shards).absolute()  # so that "." has a name
    return folder.with_name(f"{folder.name}-features")


def unfinished_shards(
    cache: Path, images: ShardManifest, splits: Sequence[Part], identity: CacheIdentity
) -> list[ShardEntry]:
    """List the image shards whose maps are missing, in order.

    Args:
        cache: The cache's folder; need not exist.
        images: The image shards.
        splits: Which of them to cache.
        identity: Who is about to make the maps.

    Raises:
        CacheError: What is there already, in any split, was made by another teacher, with other preprocessing, from
            other images, or (where maps are missing) with other library versions; names the first such shard.
    """
    missing, found = [], []
    for part in PARTS:
        for image in images.splits[part]:
            record = read_ledger(cache, image.file)
            if record is not None:
                found.append((image, *record))
            elif part in splits:
                missing.append(image)
    for image, entry, made_by in found:
        made_by.require(identity, cache / image.file, same_libraries=bool(missing))
        require_same_image_shard(cache / image.file, entry, image)
    return missing


def owned_by(worker: int, workers: int, images: ShardManifest, splits: Sequence[Part]) -> set[str]:
    """Return the files of one worker's shards; over all workers each file once, however far the work has got.

    Args:
        worker: From 0.
        workers: How many there are: ranks times array tasks.
        images: The image shards.
        splits: Which of them are cached; every n-th shard of all these is one worker's.
    """
    return {image.file for image in [image for split in splits for image in images.splits[split]][worker::workers]}


def finish_cache(cache: Path, images: ShardManifest, splits: Sequence[Part]) -> CacheManifest | None:
    """Write `manifest.json` once no shard is missing; every worker tries, the last one succeeds.

    Args:
        cache: The cache's folder.
        images: The image shards.
        splits: What has been cached now; splits that an earlier manifest has stay in it.

    Returns:
        The manifest, or None while a shard is missing.
    """
    earlier = CacheManifest.load(cache).splits if (cache / MANIFEST).exists() else {}
    files = {part: [image.file for image in images.splits[part]] for part in PARTS if part in earlier or part in splits}
    manifest = gather_manifest(cache, files)
    if manifest is not None:
        manifest.save(cache)
    return manifest
