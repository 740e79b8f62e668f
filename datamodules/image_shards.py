"""A folder of image shards, a path or a URL, and its shards, brought here while they are read."""

from pathlib import Path

from datamodules.local_copies import HeldCopy
from datamodules.remote import COPIES, LocalCopies, RemoteFolder
from datamodules.shard_manifest import FILE, ShardEntry, ShardManifest


class ImageShards:
    """What `pl-distill data shards` wrote, wherever it lies. May be handed to worker processes.

    Args:
        place: A path, or an https, s3 or gs URL.
        copies: Where copies of remote shards lie.

    Attributes:
        manifest: What the shards are.

    Raises:
        ShardError: There is no manifest, or it is damaged.
        RemoteError: The URL cannot be read.
    """

    def __init__(self, place: str | Path, copies: LocalCopies = COPIES) -> None:
        self.place = place
        self.remote = copies.remote(str(place))
        self.manifest = ShardManifest.load(here(place, self.remote, FILE))

    def hold(self, shard: ShardEntry) -> HeldCopy:
        """Return a shard, which stays where it is until it is closed; of a URL its content is that of the manifest.

        Raises:
            RemoteError: It cannot be read.
        """
        if self.remote is None:
            return HeldCopy(self.manifest.path(shard), None)
        return self.remote.hold(shard.file, size=shard.bytes, sha256=shard.sha256)


def here(place: str | Path, remote: RemoteFolder | None, manifest: str) -> Path:
    """Return the local folder that holds the newest manifest of a place, which may be remote."""
    return Path(place) if remote is None else remote.fetch(manifest, fresh=True).parent
