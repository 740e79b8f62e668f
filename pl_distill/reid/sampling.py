"""Which embeddings a pool keeps: so many an hour, and what that costs in bytes."""

from dataclasses import dataclass

from pl_distill.reid.errors import PoolError
from pl_distill.reid.storage import BYTES_PER_VALUE, Storage

SECONDS_PER_YEAR = 365 * 24 * 3600


@dataclass(frozen=True)
class SamplingPolicy:
    """Which embeddings are kept.

    An hour has `per_hour` slots of equal length; of each slot the first embedding that is good enough is kept.
    The defaults are the paper's 94 MB for an animal and year: 7 * 24 * 365 vectors of 384 float32 values.

    Args:
        per_hour: Embeddings of one animal in an hour.
        storage: float32, float16 (half the bytes) or int8 (a quarter; the loss is in docs/animal-record.md).
        min_quality: Embeddings of crops below this are not kept, 0 to 1.
    """

    per_hour: int = 7
    storage: Storage = "float32"
    min_quality: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.per_hour <= 3600:
            raise PoolError("sampling.per_hour", f"is {self.per_hour}", "1 to 3600", "Choose another value.")
        if self.storage not in BYTES_PER_VALUE:
            raise PoolError(
                "sampling.storage", f"is {self.storage!r}", " or ".join(BYTES_PER_VALUE), "Correct the spelling."
            )

    @property
    def slot_s(self) -> float:
        """Length of a slot in seconds."""
        return 3600 / self.per_hour

    def slot_of(self, time_s: float) -> int:
        """Number of the slot that a time lies in, from 1970 on; in whole milliseconds, for exact borders."""
        return round(time_s * 1000) * self.per_hour // 3_600_000

    def begin_ms(self, slot: int) -> int:
        """Return the first millisecond since 1970 that lies in a slot."""
        return -(-slot * 3_600_000 // self.per_hour)

    def budget_bytes(self, dimension: int) -> int:
        """Bytes of one animal's vectors in a year of 365 days, without anything around them."""
        return round(self.per_hour * SECONDS_PER_YEAR / 3600 * dimension * BYTES_PER_VALUE[self.storage])
