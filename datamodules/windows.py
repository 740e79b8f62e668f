"""Short windows of labelled frames: one frame for a detector, several for a tracker that is unrolled over them.

Nothing here knows the pen: a window is frames of a clip in shards, with what `datamodules.clip.Annotation` says of
them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.errors import ShardError, UserError
from datamodules.preprocessing import Preprocessing
from datamodules.shard_index import IndexedShard, open_shard
from datamodules.shard_manifest import ShardManifest
from datamodules.splits import Part
from datamodules.views import FrameTruth, View, Weather, truth_of


@dataclass(frozen=True)
class Window:
    """T frames of a clip in one view.

    Args:
        keys: Names of the samples, of length T.
        times: Distance of each frame from the first in labelled frames, 0 first, rising; of length T.
        images: (T, 3, S, S), as SAM 3's processor gives them.
        truth: Of each frame, of length T.
    """

    keys: tuple[str, ...]
    times: tuple[int, ...]
    images: Tensor
    truth: tuple[FrameTruth, ...]


@dataclass  # not frozen: Lightning moves batches to a device by copying and setting fields
class WindowBatch:
    """B windows of T frames.

    Args:
        keys: B tuples of length T.
        times: B tuples of length T.
        images: (B, T, 3, S, S).
        truth: B tuples of length T.
    """

    keys: tuple[tuple[str, ...], ...]
    times: tuple[tuple[int, ...], ...]
    images: Tensor
    truth: tuple[tuple[FrameTruth, ...], ...]

    def pin_memory(self) -> "WindowBatch":
        """Return the same with images in page-locked memory; a `DataLoader` asks for it by this name."""
        return WindowBatch(self.keys, self.times, self.images.pin_memory(), self.truth)


def collate(windows: Sequence[Window]) -> WindowBatch:
    """Put windows of one length together."""
    return WindowBatch(
        tuple(window.keys for window in windows),
        tuple(window.times for window in windows),
        torch.stack([window.images for window in windows]),
        tuple(window.truth for window in windows),
    )


@dataclass(frozen=True)
class Variety:
    """How views differ in training.

    Args:
        zoom: The smallest part of the picture's width or height that is shown; 1 shows always all.
        mirror_y: Whether half of the views are upside down: right for cameras that look straight down.
        weather: The largest relative change of brightness.
    """

    zoom: float = 0.7
    mirror_y: bool = True
    weather: float = 0.25


class ShardWindows(Dataset[Window]):
    """Windows over the labelled frames of one part of image shards, by the number of their first frame.

    A number beyond the last is one of a later epoch, see `TicketSampler`: what is drawn hangs on seed, epoch and frame.

    Args:
        shards: What `write_shards` wrote.
        part: ``train``, ``val`` or ``test``.
        preprocessing: The model's.
        mask_size: Side of the masks in pixels.
        offsets: Patterns of labelled frames relative to the first, one drawn per window: ``[[0]]``,
            ``[[0, 1, 2], [0, 9, 10]]``; rising, of one length. A window that would leave its clip runs backwards in
            time instead; one that fits neither way starts as far from the clip's end as it needs.
        variety: How views differ; None shows every picture whole and as it is, with the first pattern.
        seed: Of what is drawn.

    Raises:
        UserError: The patterns do not start at 0, differ in length, or are longer than a clip.
        ShardError: A shard is damaged, or the part has no labelled frame.
    """

    def __init__(
        self,
        shards: str,
        part: Part,
        preprocessing: Preprocessing,
        mask_size: int,
        offsets: Sequence[Sequence[int]] = ((0,),),
        variety: Variety | None = None,
        seed: int = 0,
    ) -> None:
        if len({len(pattern) for pattern in offsets}) != 1 or any(pattern[0] != 0 for pattern in offsets):
            fix = "Correct data.offsets and data.val_offsets."
            raise UserError("offsets", f"are {offsets}", "patterns of one length that start at 0", fix)
        manifest = ShardManifest.load(shards)
        self.preprocessing = preprocessing
        self.mask_size = mask_size
        self.offsets = [tuple(pattern) for pattern in offsets]
        self.variety = variety
        self.seed = seed
        self._shards = [open_shard(manifest.path(entry), entry.samples) for entry in manifest.splits[part]]
        self._samples: list[tuple[IndexedShard, int]] = []
        self._clips: list[range] = []  # the samples of each clip: frames of a clip lie together
        self._clip_of: list[int] = []
        self.shard_sizes: list[int] = []
        last = ""
        for shard in self._shards:
            before = len(self._samples)
            for number in range(len(shard)):
                record = shard.record(number)
                if record.annotation is None:
                    continue
                count = len(self._samples)
                if record.clip != last:
                    self._clips.append(range(count, count))
                    last = record.clip
                self._clips[-1] = range(self._clips[-1].start, count + 1)
                self._clip_of.append(len(self._clips) - 1)
                self._samples.append((shard, number))
            self.shard_sizes.append(len(self._samples) - before)
        if not self._samples:
            raise ShardError(
                shards, f"has no labelled frame in {part}", "at least one", "Choose a split with labelled days for it."
            )
        reach, shortest = max(pattern[-1] for pattern in offsets), min(self._clips, key=len)
        if reach >= len(shortest):
            shard, number = self._samples[shortest.start]
            raise UserError(
                "offsets",
                f"reach {reach} labelled frames ahead, but clip {shard.record(number).clip} has {len(shortest)} in all",
                f"at most {len(shortest) - 1}",
                "Shorten data.offsets and data.val_offsets, or leave this clip out.",
            )

    def __len__(self) -> int:
        return len(self._clip_of)

    def __getitem__(self, ticket: int) -> Window:
        epoch, number = divmod(ticket, len(self))
        rng = np.random.default_rng([self.seed, epoch, number])
        pattern = self.offsets[0]
        view, weather = View(), None
        if self.variety is not None:
            pattern = self.offsets[int(rng.integers(len(self.offsets)))]
            view = View.random(rng, zoom=self.variety.zoom, mirror_y=self.variety.mirror_y)
            weather = Weather.random(rng, self.variety.weather)
        frames = place(pattern, number, self._clips[self._clip_of[number]])
        parts = [self._frame(frame, view, weather, rng) for frame in frames]
        return Window(
            tuple(key for key, _, _ in parts),
            tuple(abs(frame - frames[0]) for frame in frames),
            torch.stack([pixels for _, pixels, _ in parts]),
            tuple(truth for _, _, truth in parts),
        )

    def _frame(
        self, number: int, view: View, weather: Weather | None, rng: np.random.Generator
    ) -> tuple[str, Tensor, FrameTruth]:
        shard, within = self._samples[number]
        sample = shard[within]
        assert sample.annotation is not None  # only labelled samples are numbered
        height, width = sample.image.shape[:2]
        truth = truth_of(sample.annotation, view, width=width, height=height, mask_size=self.mask_size)
        pixels = self.preprocessing(view.of_image(sample.image))
        return sample.key, pixels if weather is None else weather(pixels, rng), truth


def place(pattern: Sequence[int], first: int, clip: range) -> list[int]:
    """Lay a pattern of offsets into a clip.

    Args:
        pattern: Rising offsets, 0 first.
        first: Where to start; moved back if the pattern fits neither forwards nor backwards from there.
        clip: The frames of the clip.

    Returns:
        Frames of the clip, forwards or backwards in time.

    Raises:
        ValueError: The clip is shorter than the pattern.
    """
    reach = pattern[-1]
    if reach >= len(clip):
        raise ValueError(f"a clip of {len(clip)} labelled frames is too short for the offsets {list(pattern)}")
    if first + reach > clip[-1] and first - reach >= clip[0]:
        return [first - offset for offset in pattern]
    first = min(first, clip[-1] - reach)
    return [first + offset for offset in pattern]
