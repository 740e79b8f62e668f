"""Shards: what others need of them, under one name.

Writing is in `datamodules.shard_writer`, the manifest in `datamodules.shard_manifest`, random access to samples in
`datamodules.shard_index`, clips out of shards in `datamodules.shard_reader`; here they are joined and verified.
"""

from pathlib import Path

from tqdm import tqdm

from datamodules.errors import ShardError
from datamodules.files import sha256_of
from datamodules.shard_index import IndexedShard
from datamodules.shard_manifest import ClipEntry, ShardEntry, ShardManifest
from datamodules.shard_reader import check_keys, read_shard_clips
from datamodules.shard_sample import Sample, sample_key
from datamodules.shard_writer import write_shards

__all__ = [
    "ClipEntry",
    "IndexedShard",
    "Sample",
    "ShardEntry",
    "ShardManifest",
    "read_shard_clips",
    "sample_key",
    "verify_shards",
    "write_shards",
]


def verify_shards(folder: str | Path) -> ShardManifest:
    """Compare every shard with the manifest: SHA-256, number and names of samples; see that no other tar is there.

    Reads all shards, with a progress bar.

    Args:
        folder: What `write_shards` wrote.

    Returns:
        The manifest.

    Raises:
        ShardError: Names the first shard that is missing, changed or not in the manifest.
    """
    manifest = ShardManifest.load(folder)
    entries = [entry for shards in manifest.splits.values() for entry in shards]
    with tqdm(total=sum(entry.bytes for entry in entries), desc="verify", unit="B", unit_scale=True) as bar:
        for entry in entries:
            _verify_shard(manifest.path(entry), entry)
            bar.update(entry.bytes)
    named = {manifest.path(entry) for entry in entries}
    for path in sorted(manifest.folder.glob("*/*.tar")):
        if path not in named:
            raise ShardError(
                path, "is not in the manifest", "only the shards that it names", "Move this file elsewhere."
            )
    return manifest


def _verify_shard(path: Path, entry: ShardEntry) -> None:
    fix = (
        "Copy this shard again; or delete it and run `pl-distill data shards` again, which writes only what is missing."
    )
    if not path.is_file():
        raise ShardError(path, "is not there", "the shard that the manifest names", fix)
    size = path.stat().st_size
    if size != entry.bytes:
        raise ShardError(path, f"has {size} bytes", f"{entry.bytes}, as the manifest says", fix)
    found = sha256_of(path)
    if found != entry.sha256:
        raise ShardError(path, f"has SHA-256 {found}", f"{entry.sha256}, as the manifest says", fix)
    expected = [
        sample_key(segment.clip, segment.first_frame + offset)
        for segment in entry.clips
        for offset in range(segment.frames)
    ]
    check_keys(IndexedShard(path), expected)
