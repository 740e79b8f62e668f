"""LightningDataModule of labelled windows: what SAM 3's own detector and tracker are trained on."""

from collections.abc import Sequence

from lightning.pytorch import LightningDataModule
from torch.utils.data import Subset

from datamodules.errors import UserError
from datamodules.preprocessing import Preprocessing
from datamodules.resumption import ResumableDataLoader, resume_point
from datamodules.sampling import EpochSampler, TicketSampler
from datamodules.splits import Part
from datamodules.windows import ShardWindows, Variety, collate


class TrackingDataModule(LightningDataModule):
    """Labelled frames out of image shards, one by one for a detector or in windows for a tracker.

    Args:
        shards: Folder that `pl-distill data shards` wrote.
        image_size: Side of the model's input in pixels.
        mask_size: Side of the model's masks in pixels, four times its grid.
        batch_size: Windows per step and process.
        num_workers: Processes that read and decode.
        offsets: Frames of a window relative to its first, one pattern drawn per window; ``[[0]]`` is single frames.
        variety: How views differ in training.
        val_offsets: The frames of a window of the validation part.
        val_every: Every how many labelled frames a window of the validation part starts.
        val_batch_size: Windows per validation step.
        seed: Of the order, and of what varies.

    Raises:
        UserError: A number is not positive.
    """

    def __init__(
        self,
        shards: str,
        image_size: int = 1008,
        mask_size: int = 288,
        batch_size: int = 8,
        num_workers: int = 0,
        offsets: Sequence[Sequence[int]] = ((0,),),
        variety: Variety | None = None,
        val_offsets: Sequence[int] = (0,),
        val_every: int = 1,
        val_batch_size: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        counts = {"batch_size": batch_size, "val_batch_size": val_batch_size, "val_every": val_every}
        for name, value in counts.items():
            if value < 1:
                raise UserError(f"data.{name}", f"is {value}", "at least 1", "Give a positive number.")
        self.shards = shards
        self.preprocessing = Preprocessing(size=image_size)
        self.mask_size = mask_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.offsets = [list(pattern) for pattern in offsets]
        self.variety = Variety() if variety is None else variety
        self.val_offsets = list(val_offsets)
        self.val_every = val_every
        self.val_batch_size = val_batch_size
        self.seed = seed

    def train_dataloader(self) -> ResumableDataLoader:
        """Give shuffled windows in varied views, equally many on every rank, resumable in mid-epoch."""
        windows = self._windows("train", self.offsets, self.variety)
        sampler = self._sampler(windows.shard_sizes, self.batch_size, training=True)
        assert self.trainer is not None
        sampler.resume(*resume_point(self.trainer))
        return self._loader(windows, sampler)

    def val_dataloader(self) -> ResumableDataLoader:
        """Give every `val_every`-th window of the validation part in order, each picture whole."""
        windows = self._windows("val", [self.val_offsets], None)
        chosen = Subset(windows, range(0, len(windows), self.val_every))
        return self._loader(chosen, self._sampler([len(chosen)], self.val_batch_size, training=False))

    def _windows(self, part: Part, offsets: Sequence[Sequence[int]], variety: Variety | None) -> ShardWindows:
        return ShardWindows(self.shards, part, self.preprocessing, self.mask_size, offsets, variety, self.seed)

    def _sampler(self, sizes: Sequence[int], batch_size: int, *, training: bool) -> EpochSampler:
        assert self.trainer is not None
        kind = TicketSampler if training else EpochSampler
        return kind(
            sizes,
            batch_size=batch_size,
            rank=self.trainer.global_rank,
            ranks=self.trainer.world_size,
            seed=self.seed,
            training=training,
        )

    def _loader(self, windows: ShardWindows | Subset[object], sampler: EpochSampler) -> ResumableDataLoader:
        return ResumableDataLoader(
            windows,
            sampler,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0 and sampler.shuffle,
        )
