"""Which frames go into which shard: fixed before the first frame is decoded.

Within a part the shards differ by at most one sample, and a clip's frames stay together and in order; a clip may
start in one shard and end in the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from datamodules.splits import Part


@dataclass(frozen=True)
class Segment:
    """A run of a clip's frames.

    Args:
        clip: Name of the clip.
        first_frame: Index of the first frame, from 0.
        frames: How many.
    """

    clip: str
    first_frame: int
    frames: int


@dataclass(frozen=True)
class PlannedShard:
    """A shard to write.

    Args:
        file: Path below the data set's folder: ``train/train-000000.tar``.
        segments: What it will hold, in order.
    """

    file: str
    segments: tuple[Segment, ...]

    @property
    def samples(self) -> int:
        """How many frames it will hold."""
        return sum(segment.frames for segment in self.segments)


def shard_sizes(samples: int, samples_per_shard: int) -> list[int]:
    """Divide samples into as few shards of at most `samples_per_shard` as possible, sizes as equal as possible."""
    shards = -(-samples // samples_per_shard)  # rounded up
    return [samples // shards + (number < samples % shards) for number in range(shards)]


def plan_shards(part: Part, clips: Sequence[tuple[str, int]], samples_per_shard: int) -> list[PlannedShard]:
    """Lay the clips of one part out over its shards.

    Args:
        part: ``train``, ``val`` or ``test``.
        clips: Name and number of frames of each clip, in the order in which they are to lie.
        samples_per_shard: The most samples that a shard may hold.
    """
    waiting = [Segment(name, 0, frames) for name, frames in clips if frames]
    plan = []
    for number, room in enumerate(shard_sizes(sum(frames for _, frames in clips), samples_per_shard)):
        segments: list[Segment] = []
        while room:
            head = waiting.pop(0)
            taken = min(room, head.frames)
            segments.append(Segment(head.clip, head.first_frame, taken))
            if taken < head.frames:
                waiting.insert(0, Segment(head.clip, head.first_frame + taken, head.frames - taken))
            room -= taken
        plan.append(PlannedShard(f"{part}/{part}-{number:06d}.tar", tuple(segments)))
    return plan
