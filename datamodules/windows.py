"""Short windows of labelled frames: one frame for a detector, several for a tracker that is unrolled over them.

Nothing here knows the pen: a window is frames of a clip in shards, with what `datamodules.clip.Annotation` says of
them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
            time instead; one that fits neither way starts as far from the clip's end as it needs. Where labels have a
            gap, a clip ends, and what is too short for a pattern is left out.
        variety: How views differ; None shows every picture whole and as it is, with the first pattern.
        seed: Of what is drawn.

    Raises:
        UserError: The patterns do not start at 0, differ in length, or are longer than what a clip has without a gap.
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
        self._runs: list[range] = []  # the samples of each stretch of a clip that is labelled without a gap
        self._run_of: list[int] = []
        reach = max(pattern[-1] for pattern in offsets)
        shard_of: list[int] = []
        for clip, labelled in _labelled_clips(self._shards):
            runs = [run for run in _runs([index for _, _, index in labelled]) if len(run) > reach]
            if not runs:
                raise UserError(
                    "offsets",
                    f"reach {reach} labelled frames ahead, but clip {clip} has {len(labelled)}, or gaps between them",
                    "as many without a gap",
                    "Shorten data.offsets and data.val_offsets, or leave this clip out.",
                )
            for run in runs:
                begin = len(self._samples)
                self._run_of += [len(self._runs)] * len(run)
                self._runs.append(range(begin, begin + len(run)))
                for place in run:
                    shard, number, _ = labelled[place]
                    shard_of.append(shard)
                    self._samples.append((self._shards[shard], number))
        if not self._samples:
            raise ShardError(
                shards, f"has no labelled frame in {part}", "at least one", "Choose a split with labelled days for it."
            )
        self.shard_sizes: list[int] = np.bincount(shard_of, minlength=len(self._shards)).tolist()

    def __len__(self) -> int:
        return len(self._run_of)

    def __getitem__(self, ticket: int) -> Window:
        epoch, number = divmod(ticket, len(self))
        rng = np.random.default_rng([self.seed, epoch, number])
        pattern = self.offsets[0]
        view, weather = View(), None
        if self.variety is not None:
            pattern = self.offsets[int(rng.integers(len(self.offsets)))]
            view = View.random(rng, zoom=self.variety.zoom, mirror_y=self.variety.mirror_y)
            weather = Weather.random(rng, self.variety.weather)
        frames = place(pattern, number, self._runs[self._run_of[number]])
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


def _labelled_clips(shards: Sequence[IndexedShard]) -> Iterator[tuple[str, list[tuple[int, int, int]]]]:
    """Give each clip with its labelled samples, in order: shard, number within it, number of the video's frame."""
    name, labelled = "", list[tuple[int, int, int]]()
    for place, shard in enumerate(shards):
        for number in range(len(shard)):
            record = shard.record(number)
            if record.annotation is None:
                continue
            if record.clip != name and labelled:
                yield name, labelled
                labelled = []
            name = record.clip
            labelled.append((place, number, record.index))
    if labelled:
        yield name, labelled


def _runs(indices: Sequence[int]) -> list[range]:
    """Divide labelled frames, by their numbers in the video, where more than one and a half usual steps are missing."""
    steps = np.diff(indices)
    usual = int(np.bincount(steps).argmax()) if len(steps) else 1
    cuts = [0, *(int(cut) + 1 for cut in np.flatnonzero(2 * steps > 3 * usual)), len(indices)]
    return [range(begin, end) for begin, end in pairwise(cuts)]


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
