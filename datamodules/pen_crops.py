"""Crops of the animals of many drawn pens: what an embedder for pens is trained on.

Each pen is another herd, seen over minutes and on other straw; no animal of the validation is one of the training.
Pictures are cut once, whole and with the mask beside them, so that every step can blank as much background as it likes.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datamodules.crops import BLANK, crop_layers, fade
from datamodules.edinburgh_output import BEHAVIOURS
from datamodules.errors import UserError
from datamodules.files import atomic_path, write_json
from datamodules.pen import load_pen_config, pen_frames
from datamodules.pen.coats import MARK_MAP, mark_map
from datamodules.pen.seeds import generator
from datamodules.pen_training import DrawnPen, PenShare, plan_pens
from datamodules.resumption import ResumableDataLoader, resume_point
from datamodules.sampling import TicketSampler

PLAN = "pens.json"
MIN_PIXELS = 64
"""Animals of which less is seen are left out."""

CROPS_VERSION = 1
"""Raise it when the same plan cuts something else."""


class CropBatch(NamedTuple):
    """Crops of a few animals, several of each.

    Args:
        images: RGB (B, 3, S, S), float32, 0-1.
        animals: Number of the animal, (B,), int64; equal for crops of one animal.
        pens: Number of the pen, (B,), int64.
        behaviours: Index into `BEHAVIOURS`, (B,), int64.
        days: 0 or 1: on which of the pen's two days, (B,), int64.
        marks: Where the animal's marks lie, (B, 72), float32: see `datamodules.pen.coats.mark_map`.
    """

    images: Tensor
    animals: Tensor
    pens: Tensor
    behaviours: Tensor
    days: Tensor
    marks: Tensor


@dataclass(frozen=True)
class CropVariety:
    """How crops differ from step to step. Mirror images are other animals and are not drawn.

    Args:
        blank: Range of how far the background fades.
        zoom: Range of the factor on the crop's side; above 1 the square is wider.
        shift: Largest shift, as a part of the side.
        turn_deg: Largest turn to either side.
        reverse: Part of the crops that are turned by half a circle, too: masks do not always tell the ends apart.
        gain: Range of the factor on brightness.
        tint: Largest relative change of a single colour.
        noise: Largest standard deviation of noise, in grey levels.
        stains: Most stains of dirt.
    """

    blank: tuple[float, float] = (0.4, 1.0)
    zoom: tuple[float, float] = (0.9, 1.15)
    shift: float = 0.04
    turn_deg: float = 12.0
    reverse: float = 0.1
    gain: tuple[float, float] = (0.55, 1.25)
    tint: float = 0.08
    noise: float = 5.0
    stains: int = 3


class PenCropsDataModule(LightningDataModule):
    """Draws pens, cuts their animals out, and gives batches of several crops of several animals of several pens.

    Args:
        folder: Gets one file a pen and ``pens.json``, which says what they are; both are kept and reused.
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
        UserError: The pens need seeds that are kept for evaluation.
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
        self.folder = Path(folder)
        self.pens, split = plan_pens(train, val, first_seed)
        self.parts = {part: [pen for pen in self.pens if split.part_of(pen.day) == part] for part in ("train", "val")}
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
        plan = self.folder / PLAN
        wanted = {
            "crops_version": CROPS_VERSION,
            "frames_per_pen": self.frames_per_pen,
            "seconds_apart": self.seconds_apart,
            "size": self.size,
            "pens": [asdict(pen) for pen in self.pens],
        }
        if plan.is_file() and json.loads(plan.read_text(encoding="utf-8")) != wanted:
            raise UserError(plan, "names other pens than the recipe", "the same ones", "Name another data.folder.")
        write_json(plan, wanted)
        missing = [pen for pen in self.pens if not _file(self.folder, pen).is_file()]
        if not missing:
            return
        with ProcessPoolExecutor(self.processes, mp_context=get_context("spawn")) as pool:
            jobs = [
                pool.submit(_draw, _file(self.folder, pen), pen, self.frames_per_pen, self.seconds_apart, self.size)
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
            multiprocessing_context="spawn" if self.num_workers else None,
        )

    def val_dataloader(self) -> DataLoader[CropBatch]:
        """Give every crop of a pen as one batch, as they are."""
        crops = PenCrops(self.folder, self.parts["val"], None, self.blank, None, self.seed)
        return DataLoader(crops, batch_size=1, collate_fn=collate)


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
        stored = load_file(_file(self.folder, self.pens[index]))
        animals = stored["animals"]
        rows = np.arange(len(animals))
        if self.per_animal is not None:
            chosen = [np.flatnonzero(animals == animal) for animal in np.unique(animals)]
            picked = [rng.choice(one, self.per_animal, replace=len(one) < self.per_animal) for one in chosen]
            rows = np.concatenate([*picked, rows[:0]])
        layers = stored["layers"][rows]
        if self.variety is None:
            images = fade(layers[..., :3], layers[..., 3:], self.blank)
        else:
            varied = [vary(layer, self.variety, rng) for layer in layers]
            images = np.array(varied, np.uint8).reshape(layers[..., :3].shape)
        return CropBatch(
            torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255,
            torch.from_numpy(animals[rows].astype(np.int64)) + 1000 * index,
            torch.full((len(rows),), index),
            torch.from_numpy(stored["behaviours"][rows].astype(np.int64)),
            torch.from_numpy(stored["days"][rows].astype(np.int64)),
            torch.from_numpy(self._marks_of(index, animals)[rows]),
        )

    def _marks_of(self, index: int, animals: NDArray[np.int16]) -> NDArray[np.float32]:
        pen = self.pens[index]
        for code in np.unique(animals).tolist():
            if (index, code) not in self._marks:
                coat = load_pen_config(pen.domain).coat
                self._marks[index, code] = mark_map(coat, pen.seed, code - 1).ravel()
        marks = [self._marks[index, code] for code in animals.tolist()]
        return np.array(marks, np.float32).reshape(-1, MARK_MAP[0] * MARK_MAP[1])


def collate(pens: Sequence[CropBatch]) -> CropBatch:
    """Put the crops of several pens into one batch."""
    return CropBatch(*(torch.cat(column) for column in zip(*pens, strict=True)))


def vary(layers: NDArray[np.uint8], variety: CropVariety, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Give a varied crop (S, S, 3) of a stored one (S, S, 4)."""
    size = layers.shape[0]
    turn = rng.uniform(-variety.turn_deg, variety.turn_deg) + 180.0 * bool(rng.random() < variety.reverse)
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), turn, 1 / rng.uniform(*variety.zoom))
    matrix[:, 2] += rng.uniform(-variety.shift, variety.shift, 2) * size
    moved = np.asarray(cv2.warpAffine(layers, matrix, (size, size), borderValue=(*BLANK, 0)), np.uint8)
    picture, mask = moved[..., :3].astype(np.float32), moved[..., 3:]
    for _ in range(int(rng.integers(variety.stains + 1))):
        _stain(picture, rng)
    gains = rng.uniform(*variety.gain) * rng.uniform(1 - variety.tint, 1 + variety.tint, 3)
    picture = picture * gains.astype(np.float32)
    picture += rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(0, variety.noise))
    blank = rng.uniform(*variety.blank)
    return fade(np.clip(picture, 0, 255).astype(np.uint8), mask, float(blank))


def _stain(picture: NDArray[np.float32], rng: np.random.Generator) -> None:
    """A soft brown ellipse, in place."""
    size = picture.shape[0]
    cover = np.zeros((size, size), np.float32)
    centre = tuple(int(value) for value in rng.uniform(0.1, 0.9, 2) * size)
    axes = tuple(max(1, int(value)) for value in rng.uniform(0.02, 0.10, 2) * size)
    cv2.ellipse(cover, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0.2, 0.7)), -1)
    soft = np.asarray(cv2.GaussianBlur(cover, (0, 0), size / 60), np.float32)
    picture += soft[..., None] * (np.array((74, 60, 46), np.float32) - picture)


def _file(folder: Path, pen: DrawnPen) -> Path:
    return folder / f"pen-{pen.seed:06d}.safetensors"


def _draw(path: Path, pen: DrawnPen, frames: int, seconds_apart: float, size: int) -> None:
    """Draw a pen on two days and cut its animals out."""
    config = load_pen_config(pen.domain)
    if pen.num_animals is not None:
        config = replace(config, num_animals=pen.num_animals)
    cv2.setNumThreads(1)
    every = max(1, round(seconds_apart * config.fps))
    layers: list[NDArray[np.uint8]] = []
    animals: list[int] = []
    behaviours: list[int] = []
    days: list[int] = []
    rng = generator(pen.seed, "crops")
    for day, clip in enumerate(("a", "b")):
        for frame in pen_frames(config, seed=pen.seed, frames=frames // 2, every=every, clip=clip, day=clip):
            masks = frame.masks
            seen = [n for n in range(len(frame.codes)) if frame.visible[n] and masks[n].sum() >= MIN_PIXELS]
            if not seen:
                continue
            margin = float(rng.uniform(0.05, 0.15))
            layers.append(crop_layers(frame.image, frame.boxes_xyxy[seen], masks[seen], margin, size, align=True))
            animals += [frame.codes[n] for n in seen]
            days += [day] * len(seen)
            behaviours += [BEHAVIOURS.index(frame.behaviours[n]) for n in seen]
    content: dict[str, NDArray[Any]] = {
        "layers": np.concatenate(layers) if layers else np.zeros((0, size, size, 4), np.uint8),
        "animals": np.array(animals, np.int16),
        "behaviours": np.array(behaviours, np.int16),
        "days": np.array(days, np.int16),
    }
    with atomic_path(path) as temporary:
        save_file(content, temporary)
