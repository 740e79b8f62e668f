"""LightningDataModule of behaviours: windows of an embedder's features with the class of their moment.

Days are what is held apart: neighbouring frames are near copies, and the animals of a day are those of its other clips.
A random division of frames exists to be shown beside it, under its own name, and never instead.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from datamodules.animal_features import read_features, read_manifest
from datamodules.behaviour_windows import (
    BehaviourBatch,
    Window,
    check_classes,
    class_indices,
    common_rate,
    repeats_of,
    step_of,
    window_rows,
)
from datamodules.errors import CacheError
from datamodules.motion import MOTION, motion_of
from datamodules.resumption import ResumableDataLoader, resume_point
from datamodules.sampling import EpochSampler
from datamodules.splits import PARTS, Part, load_split

Division = Literal["days", "random_frames"]
RANDOM_SHARES: Mapping[Part, float] = {"train": 0.7, "val": 0.15, "test": 0.15}


class BehaviourDataModule(LightningDataModule):
    """Features of `pl-distill embed` as labelled windows.

    Args:
        features: Folder of `pl-distill embed`, or several, of one embedder: herds of other seeds have clips of the same
            names, and cannot lie in one; nor can boxes of truth and those of tracks, of which a head may learn from
            both. What is validated is what they hold of the validation days.
        classes: The class of every raw label, or null to drop it on purpose.
        split: Which days are for what: a name of configs/splits, or the path of a .yaml file.
        division: ``days`` keeps whole days apart. ``random_frames`` scatters single frames over the parts: near copies
            of what is tested are trained on, so that its scores say little; they are logged under another name.
        window: What a head looks at.
        batch_size: Windows per step and process.
        part: Which part `validate` looks at; training always validates on ``val``.
        seed: Of the order.

    Attributes:
        class_names: Names of the classes, in the order of their indices.
        feature_size: Length of the features.
        embedder: Source and identity of the embedder.
        fps: Observations per second.
    """

    def __init__(
        self,
        features: list[str] | str,
        classes: Mapping[str, str | None],
        split: str = "pen",
        division: Division = "days",
        window: Window | None = None,
        batch_size: int = 256,
        part: Literal["val", "test"] = "val",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.features = tuple(Path(one) for one in ([features] if isinstance(features, str) else features))
        self.classes = dict(classes)
        self.class_names = check_classes("data.classes", self.classes)
        self.split = load_split(split)
        self.division = division
        self.window = Window() if window is None else window
        self.batch_size = batch_size
        self.part = part
        self.seed = seed
        self.feature_size = 0
        self.fps = 0.0
        self.embedder: dict[str, str] = {}
        self._sets: dict[Part, BehaviourWindows] = {}

    def setup(self, stage: str) -> None:
        """Read the features and divide them, once.

        Raises:
            CacheError: There are none, they are damaged or of several embedders, two folders hold the same clip, two
                clips have another rate, or a part that is needed is empty.
        """
        if self._sets:
            return
        manifests = read_manifests(self.features)
        self.embedder = dict(manifests[0]["embedder"])
        self.feature_size = int(self.embedder["features"])
        read = {
            f"{folder}, clip {name}": read_clip(folder, name, entry, self.window)
            for folder, manifest in zip(self.features, manifests, strict=True)
            for name, entry in manifest["clips"].items()
        }
        clips = list(read.values())
        # of a clip in which hardly anybody is seen twice in a row the rate is a guess
        sure = {name: clip.fps for name, clip in read.items() if clip.repeats >= self.window.length}
        self.fps = common_rate(sure or {name: clip.fps for name, clip in read.items()}) if read else 0.0
        rng = np.random.default_rng([self.seed, 1])
        chosen: dict[Part, list[NDArray[np.bool_]]] = {part: [] for part in PARTS}
        for clip in clips:
            if self.division == "days":
                belongs = np.full(len(clip.behaviour), self.split.part_of(clip.day), object)
            else:
                belongs = rng.choice(np.array(PARTS, object), len(clip.behaviour), p=list(RANDOM_SHARES.values()))
            for part in PARTS:
                chosen[part].append(belongs == part)
        for part in PARTS:
            self._sets[part] = BehaviourWindows(clips, chosen[part], self.classes, self.class_names)
        for part in ("train", "val") if stage == "fit" else (self.part,):
            if not len(self._sets[part]):
                days = sorted({clip.day for clip in clips})
                raise CacheError(
                    ", ".join(map(str, self.features)),
                    f"has no labelled animal in the part {part!r}; its days are {', '.join(days)}",
                    f"days of the split {self.split.name}",
                    "Embed clips of other days, or name another split.",
                )

    def windows(self, part: Part) -> "BehaviourWindows":
        """Return the windows of a part, after `setup`."""
        return self._sets[part]

    def train_dataloader(self) -> ResumableDataLoader:
        """Give shuffled windows, equally many on every rank, resumable in mid-epoch."""
        loader = self._loader("train")
        assert self.trainer is not None
        loader.plan.resume(*resume_point(self.trainer))
        return loader

    def val_dataloader(self) -> ResumableDataLoader:
        """Give the windows of the validation part in order; `validate` those of `part`."""
        assert self.trainer is not None
        return self._loader("val" if self.trainer.state.fn == TrainerFn.FITTING else self.part)

    def _loader(self, part: Part) -> ResumableDataLoader:
        assert self.trainer is not None
        windows = self._sets[part]
        sampler = EpochSampler(
            [len(windows)],
            batch_size=self.batch_size,
            rank=self.trainer.global_rank,
            ranks=self.trainer.world_size,
            seed=self.seed,
            training=part == "train",
        )
        return ResumableDataLoader(windows, sampler, collate_fn=windows.collate)


class ClipWindows:
    """One clip, ready to be looked at in windows.

    Args:
        day: Its recording day.
        fps: Observations per second.
        repeats: How many observations follow another of their animal at this rate.
        behaviour: Raw labels, (M,), int16.
        features: What the embedder gave, (M, F), float16.
        motion: What boxes and masks tell, (M, len(MOTION)), float32.
        rows: Of each window, (M, T), -1 where nothing was seen.
    """

    def __init__(
        self,
        day: str,
        fps: float,
        repeats: int,
        behaviour: NDArray[np.int16],
        features: NDArray[np.float16],
        motion: NDArray[np.float32],
        rows: NDArray[np.int64],
    ) -> None:
        self.day, self.fps, self.repeats = day, fps, repeats
        self.behaviour, self.features, self.motion, self.rows = behaviour, features, motion, rows


def read_manifests(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the manifests of folders whose clips are to be one set of data.

    Raises:
        CacheError: There is none, one is not there or damaged, they are not of one embedder, or two have a clip in
            common; the boxes of truth and those of tracks are two views of a clip.
    """
    if not folders:
        raise CacheError("data.features", "names no folder", "one of `pl-distill embed` or more", "Add it.")
    manifests = [read_manifest(folder) for folder in folders]
    embedders = [manifest["embedder"]["identity"][:12] for manifest in manifests]
    owners: dict[str, Path] = {}
    for folder, manifest, embedder in zip(folders, manifests, embedders, strict=True):
        if embedder != embedders[0]:
            raise CacheError(
                folder, f"is of the embedder {embedder}", f"{embedders[0]}, as {folders[0]} is",
                "Embed all alike, or leave the folder out.",
            )  # fmt: skip
        clips = {name: entry for name, entry in manifest["clips"].items() if entry["rows"]}  # empty ones are all alike
        for name, entry in clips.items():
            if owner := owners.get(entry["sha256"]):
                raise CacheError(
                    folder, f"holds the clip {name} that {owner} holds, too", "every clip once",
                    "Name each folder once, or leave the other one out.",
                )  # fmt: skip
        owners.update({entry["sha256"]: folder for entry in clips.values()})
    return manifests


def read_clip(folder: Path, name: str, entry: Mapping[str, object], window: Window) -> ClipWindows:
    """Read a clip's features and find its windows."""
    stored = read_features(folder, name, entry)
    step = step_of(stored.frame, stored.animal)
    motion = motion_of(
        stored.frame,
        stored.animal,
        stored.boxes_xyxy,
        stored.lies,
        fps=stored.fps,
        width=stored.width,
        height=stored.height,
    )
    rows = window_rows(stored.frame, stored.animal, window, step)
    repeats = repeats_of(stored.frame, stored.animal, step)
    return ClipWindows(stored.day, stored.fps / step, repeats, stored.behaviour, stored.features, motion, rows)


class BehaviourWindows(Dataset[int]):
    """Windows of some clips; an item is its number, and `collate` gathers a batch at once.

    Args:
        clips: All of them.
        chosen: Which rows of each may be the moment of a window; its other observations may be any.
        mapping: The class of every raw label.
        classes: Names of the classes.
    """

    def __init__(
        self,
        clips: Sequence[ClipWindows],
        chosen: Sequence[NDArray[np.bool_]],
        mapping: Mapping[str, str | None],
        classes: Sequence[str],
    ) -> None:
        kept = [(clip, mask) for clip, mask in zip(clips, chosen, strict=True) if mask.any()]
        starts = np.cumsum([0, *(len(clip.behaviour) for clip, _ in kept)])
        width = kept[0][0].rows.shape[1] if kept else 1
        self.features = np.concatenate([clip.features for clip, _ in kept] or [np.zeros((0, 1), np.float16)])
        self.motion = np.concatenate([clip.motion for clip, _ in kept] or [np.zeros((0, len(MOTION)), np.float32)])
        rows = [
            np.where(clip.rows >= 0, clip.rows + start, -1) for (clip, _), start in zip(kept, starts[:-1], strict=True)
        ]
        labels = [class_indices(clip.behaviour, mapping, classes) for clip, _ in kept]
        usable = [mask & (label >= 0) for (_, mask), label in zip(kept, labels, strict=True)]
        self.rows = np.concatenate(
            [r[u] for r, u in zip(rows, usable, strict=True)] or [np.zeros((0, width), np.int64)]
        )
        self.labels = np.concatenate([lb[u] for lb, u in zip(labels, usable, strict=True)] or [np.zeros(0, np.int64)])
        self.counts: NDArray[np.int64] = np.bincount(self.labels, minlength=len(classes))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, indices: Sequence[int]) -> BehaviourBatch:
        """Gather windows."""
        rows = self.rows[np.asarray(indices, np.int64)]
        present = rows >= 0
        features = np.where(present[..., None], self.features[rows], 0).astype(np.float32)
        motion = np.where(present[..., None], self.motion[rows], 0)
        return BehaviourBatch(
            torch.from_numpy(features),
            torch.from_numpy(motion),
            torch.from_numpy(present),
            torch.from_numpy(self.labels[np.asarray(indices, np.int64)]),
        )

    def batches(self, size: int) -> DataLoader[BehaviourBatch]:
        """Give all windows in order, in batches of `size`."""
        return DataLoader(self, batch_size=size, collate_fn=self.collate)  # type: ignore[arg-type]
