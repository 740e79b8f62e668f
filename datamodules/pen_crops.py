"""Crops of the animals of many drawn pens: what an embedder for pens is trained on.

Each pen is another herd, seen over minutes and on other straw; no animal of the validation is one of the training.
Pictures are cut once, whole and with the mask beside them, so that every step can blank as much background as it likes.
"""

from collections.abc import Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from datamodules.crop_variety import CropVariety, vary
from datamodules.crops import fade
from datamodules.errors import UserError
from datamodules.pen import load_pen_config
from datamodules.pen.coats import MARK_MAP, mark_map
from datamodules.pen_crop_files import CROPS_VERSION, crops_file, draw_crops
from datamodules.pen_training import DrawnPen, PenShare, drawing_processes, has_animals, plan_pens, remember_plan
from datamodules.resumption import ResumableDataLoader, resume_point
from datamodules.sampling import EpochSampler, TicketSampler


class CropBatch(NamedTuple):
    """Crops of a few animals, several of each.

    Args:
        images: RGB (B, 3, S, S), float32, 0-1.
        animals: Number of the animal, (B,), int64; equal for crops of one animal.
        pens: Number of the pen, (B,), int64.
        behaviours: Index into `BEHAVIOURS`, (B,), int64.
        days: 0 or 1: on which of the pen's two days, (B,), int64.
        marks: Where the animal's marks lie, (B, 72), float32: see `datamodules.pen.coats.mark_map`.
        poses: How its body is held, (B, len(POSE)), float32: see `datamodules.pen_crop_files.POSE`.
    """

    images: Tensor
    animals: Tensor
    pens: Tensor
    behaviours: Tensor
    days: Tensor
    marks: Tensor
    poses: Tensor


class PenCropsDataModule(LightningDataModule):
    """Draws pens, cuts their animals out, and gives batches of several crops of several animals of several pens.

    Args:
        folder: Gets one file a pen and ``pens.json``, which says what they are; both are kept and reused.
            Where there are several nodes, all have to see it: one draws.
        train: Pens to train on.
        val: Pens to validate on.
        frames_per_pen: Pictures of each pen.
        seconds_apart: Between two of them: animals have moved meanwhile.
        size: Side of the crops in pixels.
        blank: How far the background fades in validation.
        pens_per_batch: Pens of a batch; their herds are the hard negatives.
        crops_per_animal: Crops of each of their animals in a batch.
        variety: How crops differ in training.
        first_seed: Seed of the first pen; the others count on from it, up to 999,999.
        processes: How many pens are drawn at a time.
        num_workers: Processes that make batches.
        seed: Of the batches.

    Raises:
        UserError: The pens need seeds or domains that are kept for evaluation.
    """

    def __init__(
        self,
        folder: str,
        train: Sequence[PenShare],
        val: Sequence[PenShare],
        frames_per_pen: int = 16,
        seconds_apart: float = 6.0,
        size: int = 96,
        blank: float = 0.7,
        pens_per_batch: int = 4,
        crops_per_animal: int = 4,
        variety: CropVariety | None = None,
        first_seed: int = 20_000,
        processes: int = 1,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.prepare_data_per_node = False
        self.folder = Path(folder)
        self.pens, split = plan_pens(train, val, first_seed)
        self.parts = {
            part: [pen for pen in self.pens if split.part_of(pen.day) == part and has_animals(pen)]
            for part in ("train", "val")
        }
        if empty := [part for part, its in self.parts.items() if not its]:
            raise UserError(
                f"data.{empty[0]}", "has empty pens alone", "one with animals", "An embedder learns from their crops."
            )
        self.frames_per_pen = frames_per_pen
        self.seconds_apart = seconds_apart
        self.size = size
        self.blank = blank
        self.pens_per_batch = pens_per_batch
        self.crops_per_animal = crops_per_animal
        self.variety = CropVariety() if variety is None else variety
        self.processes = processes
        self.num_workers = num_workers
        self.seed = seed

    def prepare_data(self) -> None:
        """Draw what is missing.

        Raises:
            UserError: The folder holds other pens.
        """
        remember_plan(
            self.folder,
            self.pens,
            crops_version=CROPS_VERSION,
            frames_per_pen=self.frames_per_pen,
            seconds_apart=self.seconds_apart,
            size=self.size,
        )
        missing = [pen for pen in self.pens if not crops_file(self.folder, pen).is_file()]
        if not missing:
            return
        with drawing_processes(self.processes) as pool:
            jobs = [
                pool.submit(
                    draw_crops, crops_file(self.folder, pen), pen, self.frames_per_pen, self.seconds_apart, self.size
                )
                for pen in missing
            ]
            for job in tqdm(as_completed(jobs), desc="draw pens", unit="pen", total=len(jobs)):
                job.result()

    def train_dataloader(self) -> ResumableDataLoader:
        """Give varied batches; an epoch sees each pen once, on whichever rank; resumable in mid-epoch."""
        assert self.trainer is not None
        pens = self.parts["train"]
        sampler = TicketSampler(
            [len(pens)],
            batch_size=self.pens_per_batch,
            rank=self.trainer.global_rank,
            ranks=self.trainer.world_size,
            seed=self.seed,
        )
        sampler.resume(*resume_point(self.trainer))
        crops = PenCrops(self.folder, pens, self.crops_per_animal, self.blank, self.variety, self.seed)
        return ResumableDataLoader(
            crops,
            sampler,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def val_dataloader(self) -> ResumableDataLoader:
        """Give every crop of a pen as one batch, as they are."""
        assert self.trainer is not None
        pens = self.parts["val"]
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        sampler = EpochSampler([len(pens)], batch_size=1, rank=rank, ranks=ranks, training=False)
        crops = PenCrops(self.folder, pens, None, self.blank, None, self.seed)
        return ResumableDataLoader(crops, sampler, collate_fn=collate)


class PenCrops(Dataset[CropBatch]):
    """Crops of one pen at a time.

    Args:
        folder: Holds one file a pen.
        pens: Which.
        per_animal: How many crops of each animal, drawn anew in each epoch; None gives all.
        blank: How far the background fades where nothing varies.
        variety: How crops vary; None leaves them as they are.
        seed: Of both; an index beyond the number of pens is one of a later epoch.
    """

    def __init__(
        self,
        folder: Path,
        pens: Sequence[DrawnPen],
        per_animal: int | None,
        blank: float,
        variety: CropVariety | None,
        seed: int,
    ) -> None:
        self.folder, self.pens = folder, tuple(pens)
        self.per_animal = per_animal
        self.blank = blank
        self.variety = variety
        self.seed = seed
        self._marks: dict[tuple[int, int], NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self.pens)

    def __getitem__(self, ticket: int) -> CropBatch:
        epoch, index = divmod(ticket, len(self))
        rng = np.random.default_rng([self.seed, epoch, index])
        stored = load_file(crops_file(self.folder, self.pens[index]))
        animals = stored["animals"]
        rows = np.arange(len(animals))
        if self.per_animal is not None:
            chosen = [np.flatnonzero(animals == animal) for animal in np.unique(animals)]
            picked = [rng.choice(one, self.per_animal, replace=len(one) < self.per_animal) for one in chosen]
            rows = np.concatenate([*picked, rows[:0]])
        layers, poses = stored["layers"][rows], stored["poses"][rows]
        if self.variety is None:
            images = fade(layers[..., :3], layers[..., 3:], self.blank)
        else:
            varied = [vary(layer, self.variety, rng) for layer in layers]
            images = np.array([image for image, _ in varied], np.uint8).reshape(layers[..., :3].shape)
            poses = turned(poses, np.array([turn for _, turn in varied]))
        return CropBatch(
            torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255,
            torch.from_numpy(animals[rows].astype(np.int64)) + 1000 * index,
            torch.full((len(rows),), index),
            torch.from_numpy(stored["behaviours"][rows].astype(np.int64)),
            torch.from_numpy(stored["days"][rows].astype(np.int64)),
            torch.from_numpy(self._marks_of(index, animals)[rows]),
            torch.from_numpy(poses),
        )

    def _marks_of(self, index: int, animals: NDArray[np.int16]) -> NDArray[np.float32]:
        pen = self.pens[index]
        for code in np.unique(animals).tolist():
            if (index, code) not in self._marks:
                coat = load_pen_config(pen.domain).coat
                self._marks[index, code] = mark_map(coat, pen.seed, code - 1).ravel()
        marks = [self._marks[index, code] for code in animals.tolist()]
        return np.array(marks, np.float32).reshape(-1, MARK_MAP[0] * MARK_MAP[1])


def turned(poses: NDArray[np.float32], degrees: NDArray[np.float64]) -> NDArray[np.float32]:
    """Give the poses (B, len(POSE)) of crops that are turned by some degrees, (B,), clockwise."""
    angle = np.arctan2(poses[:, 1], poses[:, 0]) + np.radians(degrees)
    return np.concatenate([np.stack([np.cos(angle), np.sin(angle)], 1), poses[:, 2:]], 1, dtype=np.float32)


def collate(pens: Sequence[CropBatch]) -> CropBatch:
    """Put the crops of several pens into one batch."""
    return CropBatch(*(torch.cat(column) for column in zip(*pens, strict=True)))
