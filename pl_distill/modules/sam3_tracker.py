"""Train SAM 3's tracker on short windows: an object is prompted by a mask and followed through memory.

Source: SAM 2 (arXiv 2408.00714, section D.2) and facebookresearch/sam3; transformers has no losses. The trunk stays as
the detector left it. Nothing here knows where the windows come from.
"""

import logging
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from datamodules.windows import WindowBatch
from pl_distill.losses.masks import mask_iou
from pl_distill.losses.tracking import TrackingLoss
from pl_distill.models.sam3_initialise import initialise_tracker
from pl_distill.models.sam3_tracker import tracker_features
from pl_distill.models.sam3_training import TrainableSam3, open_sam3, save_sam3, stored_words
from pl_distill.models.tensor_hash import tensors_sha256
from pl_distill.modules.all_ranks import fresh_in_batch, from_all_ranks, mean_over_ranks
from pl_distill.modules.exported import ExportedModule
from pl_distill.modules.picture_size import check_picture_size
from pl_distill.modules.tracking_unroll import ObjectWindow, Sloppiness, unroll

logger = logging.getLogger(__name__)

ADAMW = partial(torch.optim.AdamW, lr=4e-4, weight_decay=0.05)


class Sam3TrackerModule(ExportedModule):
    """Train tracker and tracker neck of a SAM 3 on windows of labelled frames with masks.

    Logs ``train/`` with each term of the loss, and ``val/mask_iou_<n>`` and ``val/own_<n>``: IoU n frames after the
    prompt without any correction, and the part of objects whose mask overlaps their own truth more than any other's.
    Both judge the mask of every visible object, also where the tracker says that it cannot be seen (a score of 0 or
    less) and a stream would show none. The trainer needs `max_steps`.

    Args:
        sam3: Folder or hub name of the model to go on from: the detector's stage, or a finished SAM 3.
        fresh: Whether tracker and tracker neck start from scratch, the neck as a copy of the detector's.
        animal: The word for the animals whose embedding is stored with the exported model, with those of `things`; by
            default the words that lie beside `sam3`, and "pig" where none do.
        things: Identities that are not tracked in training, and further words to store.
        objects: The most objects of a window that are followed.
        corrected: Chance that a frame's memory is corrected by a detection.
        grow_every: Every how many steps the followed part of a window grows by a frame, from two on; 0 follows whole
            windows from the start. Short windows are cheap and teach the first thing, to follow a mask to the next
            frame.
        prompt_weight: Weight of the answer to the prompt itself.
        loss: What is minimised in each frame.
        sloppiness: How a detection differs from the truth.
        optimizer: Called with two groups of parameters, decayed and not decayed.
        warmup: Steps in which the learning rate rises.
        cooldown: Part of the run in which the learning rate falls to 0, at its end.
        attention: `transformers`' implementation of attention.
    """

    DECISIVE = (
        "detector_sha256", "things", "objects", "corrected", "grow_every", "prompt_weight", "loss", "sloppiness",
    )  # fmt: skip

    def __init__(
        self,
        sam3: str,
        fresh: bool = False,
        animal: str | None = None,
        things: Sequence[str] = (),
        objects: int = 8,
        corrected: float = 0.3,
        grow_every: int = 0,
        prompt_weight: float = 0.3,
        loss: TrackingLoss | None = None,
        sloppiness: Sloppiness | None = None,
        optimizer: OptimizerCallable = ADAMW,
        warmup: int = 200,
        cooldown: float = 0.3,
        attention: str = "sdpa",
    ) -> None:
        super().__init__(optimizer, warmup, cooldown)
        self.sam3 = sam3
        self.fresh = fresh
        self.animal = animal
        self.things = frozenset(things)
        self.objects = objects
        self.corrected = corrected
        self.grow_every = grow_every
        self.prompt_weight = prompt_weight
        self.loss = TrackingLoss() if loss is None else loss
        self.sloppiness = Sloppiness() if sloppiness is None else sloppiness
        self.attention = attention

    def configure_model(self) -> None:
        """Load the model, once."""
        if hasattr(self, "tracker"):
            return
        opened = open_sam3(self.sam3, attention=self.attention)
        if self.fresh:
            initialise_tracker(opened.model)
        self.words = self._words()
        opened.model.detector_model.requires_grad_(False)
        self._opened: list[TrainableSam3] = [opened]  # a list hides the detector from state_dict
        self._followed: dict[int, list[Tensor]] = {}  # time -> (objects, 2) of each window: overlap, the right animal
        self.tracker = opened.model.tracker_model
        self.tracker_neck = opened.model.tracker_neck
        for trained in (self.tracker, self.tracker_neck):
            trained.train()  # it is loaded to be used, and Lightning keeps the mode that it finds: no dropout
        # The tracker learns to read this detector's features, and checkpoints do not hold it.
        self.detector_sha256 = tensors_sha256(sorted(opened.model.detector_model.named_parameters()))

    def _words(self) -> list[str]:
        """Return what the exported model is to know: the tracker hears no word, and must not lose the detector's."""
        if self.animal is not None:
            words = [self.animal]
        elif not (words := stored_words(self.sam3)):
            words = ["pig"]
            logger.warning("%s stores no words: the exported model will know 'pig'; see --model.animal", self.sam3)
        return list(dict.fromkeys([*words, *sorted(self.things)]))

    def on_fit_start(self) -> None:
        """Refuse pictures of another size than the model's, and move the detector beside the tracker."""
        check_picture_size(self.trainer, self._opened[0].model, self.sam3)
        self._opened[0].model.to(self.device)

    def on_validation_start(self) -> None:
        """Do so also without a fit."""
        self.on_fit_start()

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch; what is drawn depends on seed and step only."""
        chance = random.Random(f"{torch.initial_seed()}-{self.global_step}-{self.global_rank}")
        length = batch.images.shape[1]
        if self.grow_every:
            length = min(length, 2 + self.global_step // self.grow_every)
        features = tracker_features(self._opened[0].model, batch.images[:, :length].flatten(0, 1))
        terms: dict[str, Tensor] = {}
        animals = [[name for name in window[0].identities if name not in self.things] for window in batch.truth]
        windows = sum(map(bool, animals))
        # Gradients are averaged over ranks: each rank divides by the mean of all, or a window whose neighbours on
        # other ranks are empty pens would count for less than one with empty pens beside it on its own.
        share = mean_over_ranks(torch.tensor(float(windows), device=self.device))
        for number, (whole, names) in enumerate(zip(batch.truth, animals, strict=True)):
            if not names:
                continue
            frames = whole[:length]
            objects = ObjectWindow.of(frames, chance.sample(names, min(len(names), self.objects)))
            corrected = [chance.random() < self.corrected for _ in frames]
            steps = unroll(
                self.tracker,
                features.frames(number * length, length),
                objects,
                batch.times[number][:length],
                corrected=corrected,
                chance=chance,
                sloppiness=self.sloppiness,
            )
            for step in steps:
                output = step.output
                with torch.autocast(self.device.type, enabled=False):
                    of_frame = self.loss(
                        output.masks.float(),
                        output.quality.float(),
                        output.score.float(),
                        objects.masks[step.frame],
                        objects.visible[step.frame],
                    )
                weight = self.prompt_weight if step.frame == 0 else 1.0
                for name, value in of_frame.items():
                    terms[name] = terms.get(name, value.new_zeros(())) + value * weight / (
                        length - 1 + self.prompt_weight
                    )
        if not windows:  # only empty pictures: a loss that moves nothing
            return features.low.sum() * 0
        for name, value in terms.items():
            self.log(f"train/{name}", value / windows, prog_bar=name == "loss", batch_size=windows)
        return terms["loss"] / share

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        self._followed = {}

    def on_validation_epoch_end(self) -> None:
        """Log the scores, over the windows of all ranks."""
        everyone = from_all_ranks(self._followed)
        for time in sorted({time for rank in everyone for time in rank}):
            found = torch.cat([one for rank in everyone for one in rank.get(time, [])])  # (objects, 2)
            for name, value in zip(("mask_iou", "own"), found.mean(0), strict=True):
                self.log(f"val/{name}_{time}", value, prog_bar=True, sync_dist=True)

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        """Follow every object from its true mask without correction."""
        features = tracker_features(self._opened[0].model, batch.images.flatten(0, 1))
        length = batch.images.shape[1]
        fresh = fresh_in_batch(self.trainer, batch_idx, len(batch.truth))
        for number, frames in enumerate(batch.truth[:fresh]):
            names = [name for name in frames[0].identities if name not in self.things]
            if not names:
                continue
            objects = ObjectWindow.of(frames, names)
            steps = unroll(
                self.tracker,
                features.frames(number * length, length),
                objects,
                batch.times[number],
                corrected=[False] * length,
                chance=random.Random(0),
                sloppiness=None,
            )
            for step in steps[1:]:
                self._score(step.output.best_masks.float(), objects, step.frame, batch.times[number][step.frame])

    def _score(self, masks: Tensor, objects: ObjectWindow, frame: int, time: int) -> None:
        visible = objects.visible[frame]
        if not visible.any():
            return
        truth = objects.masks[frame]
        own = mask_iou(masks[visible], truth[visible])
        count = int(visible.sum())
        rows = masks[visible].repeat_interleave(len(truth), 0)
        others = mask_iou(rows, truth.repeat(count, 1, 1)).view(count, -1)
        right = (own > 0) & (own >= others.amax(1))
        self._followed.setdefault(time, []).append(torch.stack([own, right.float()], 1).cpu())

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
        """Write the whole SAM 3 with the trained tracker, as `load_sam3` reads it."""
        return save_sam3(self._opened[0], Path(folder), self.words, dtype=dtype)
