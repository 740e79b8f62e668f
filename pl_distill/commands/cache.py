"""`pl-distill cache`: look at a feature cache, or hash every byte of it."""

from pathlib import Path

from tqdm import tqdm

from datamodules.cache_manifest import CacheManifest
from datamodules.feature_cache import FeatureCache
from datamodules.shard_manifest import ShardManifest


def info(cache: Path) -> None:
    """Show who made a cache, from how many frames, and how large it is.

    Example: pl-distill cache info --cache runs/demo/shards-features

    Args:
        cache: Folder of feature shards, as `pl-distill predict` writes it.
    """
    print(_summary(cache, CacheManifest.load(cache)))


def verify(cache: Path, shards: Path | None = None) -> None:
    """Compare every feature shard with its SHA-256; reads the whole cache.

    Example: pl-distill cache verify --cache runs/demo/shards-features --shards runs/demo/shards

    Args:
        cache: Folder of feature shards, as `pl-distill predict` writes it.
        shards: Folder of image shards; with it, also see that the maps were made from these images.
    """
    opened = FeatureCache.open(cache, shards=ShardManifest.load(shards) if shards is not None else None)
    with tqdm(total=opened.manifest.bytes, desc="verify", unit="B", unit_scale=True) as bar:
        opened.verify(bar.update)
    images = f", made from the images of {shards}" if shards is not None else ""
    print(f"{cache}: {opened.manifest.samples} maps are as they were written{images}")


def _summary(cache: Path, manifest: CacheManifest) -> str:
    made, (channels, height, width) = manifest.identity, manifest.shape
    prepared = ", ".join(f"{name} {value}" for name, value in made.preprocessing.items())
    lines = {
        "cache": str(cache),
        "teacher": f"{made.teacher}, trunk {made.trunk_sha256}",
        "input": prepared,
        "computed": f"{made.precision}, attention {made.attention}, "
        + ", ".join(f"{name} {number}" for name, number in made.libraries.items()),
        "maps": f"{made.level}, {channels} channels x {height} x {width}, {made.codec}",
    }
    for split, entries in manifest.splits.items():
        maps, size_gib = sum(entry.samples for entry in entries), sum(entry.bytes for entry in entries) / 2**30
        lines[split] = f"{maps} maps in {len(entries)} shards, {size_gib:.3f} GiB"
    return "\n".join(f"{name:<9} {value}" for name, value in lines.items())
