"""What can be wrong with a pool."""

from datamodules.errors import DataError


class PoolError(DataError):
    """A pool is absent, damaged, in use, or of another embedder."""
