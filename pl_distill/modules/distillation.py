"""Train a student to reproduce a teacher's cached trunk map; the teacher itself is not loaded, only its two necks."""

import copy
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from datamodules.batch import DistillationBatch
from pl_distill.errors import ConfigError
from pl_distill.losses.agreement import centred_relative_error, cosine, relative_error
from pl_distill.losses.direction_then_scale import DirectionThenScaleLoss
from pl_distill.losses.feature_loss import FeatureLoss, Progress
from pl_distill.models.sam3 import Necks, Pyramids, load_necks, read_geometry
from pl_distill.models.student_io import Student, StudentFactory
from pl_distill.models.tinyvit_fpn import TinyViTFPN
from pl_distill.modules.cache_agreement import require_the_caches_shape, require_the_caches_teacher
from pl_distill.modules.features import Features
from pl_distill.modules.gradient_meter import GradientMeter
from pl_distill.modules.parameter_groups import parameter_groups
from pl_distill.modules.recent_means import RecentMeans
from pl_distill.modules.resumed import ResumedModule
from pl_distill.modules.schedules import check_part, cosine_schedule, total_steps
from pl_distill.modules.training_identity import (
    Identity,
    data_settings,
    is_plain,
    loss_settings,
    optimizer_settings,
    require_average,
    require_same_student,
    trainer_settings,
)

log = logging.getLogger(__name__)

# Learning rate: EfficientSAM3's for a batch of 512 images; decay: TinyViT's.
ADAMW = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.05)
AGREEMENT = {"cosine": cosine, "relative_error": relative_error, "centred_relative_error": centred_relative_error}


class DistillationModule(ResumedModule):
    """Distil a teacher's cached feature maps into a student.

    Logs ``train/`` (means over 20 steps) and ``val/`` with the loss and its terms, ``train/learning_rate``, and
    ``val/cosine``, ``val/relative_error``, ``val/centred_relative_error`` of the map, or as means over the levels where
    the student gives pyramids; ``val_levels/`` has cosine and relative error of each level. ``val/loss`` has every
    term at its final weight, so that it can be compared over time. ``gradient_norm/`` and ``gradient_share/`` say how
    hard each term pulls at the student's map, and its part of all. The schedules count optimiser steps: the trainer
    needs `max_steps`.

    Args:
        teacher: The SAM 3 that made the cache, a folder or hub name. Its two necks are read, frozen, and never
            checkpointed; channels and grid of its map are given to `student`.
        student: Builds the student; it maps images (B, 3, S, S) to the teacher's map (B, C, h, w), or to both
            pyramids.
        target: Which of the two; it decides whose channels the student is told.
        loss: Builds the loss.
        optimizer: Called with two groups of parameters: matrices and kernels, and those that are not decayed (norms,
            biases, tables).
        warmup: Part of the training in which the learning rate rises linearly, 0 to 1.
        final_lr: Where the cosine schedule ends, as a part of the highest learning rate, 0 to 1.
        gradient_norms_every: Measure the terms' gradients at every n-th optimiser step, on its first 4 images; each
            costs one more loss of these with both pyramids forward and back, without the student. 0: never.
        compile_backend: Compile the student with torch.compile and this backend, such as "inductor". None: do not.

    Raises:
        ConfigError: `warmup` or `final_lr` is no part of a whole, 0 to 1.
    """

    def __init__(
        self,
        teacher: str,
        student: StudentFactory = TinyViTFPN,
        loss: Callable[[], FeatureLoss] = DirectionThenScaleLoss,
        optimizer: OptimizerCallable = ADAMW,
        warmup: float = 0.05,
        final_lr: float = 0.01,
        gradient_norms_every: int = 100,
        target: Literal["trunk", "pyramids"] = "trunk",
        compile_backend: str | None = None,
    ) -> None:
        super().__init__()
        check_part("model.warmup", warmup, whole="all steps")
        check_part("model.final_lr", final_lr, whole="the highest learning rate")
        self.save_hyperparameters(logger=False)  # the callback RunCard writes them, with scores
        self.teacher = teacher
        self.build_student = student
        self.build_optimizer = optimizer
        self.warmup = warmup
        self.final_lr = final_lr
        self.target = target
        self.compile_backend = compile_backend
        self.loss = loss()
        self._settings: Identity = {"model.loss": loss_settings(self.loss)}
        self._teacher_necks: list[Necks] = []  # a list hides them from state_dict, DeepSpeed and the parameter count
        self._total_steps = 0
        self._recent = RecentMeans()
        self.gradient_meter = GradientMeter(self.loss, self._pyramids, gradient_norms_every)

    def setup(self, stage: str) -> None:
        """Read the necks: not in `configure_model`, where ZeRO-3 would partition what is built.

        Raises:
            ConfigError: The cache in use was not made by this teacher as it is now.
        """
        super().setup(stage)
        require_the_caches_teacher(self.teacher, getattr(self._trainer, "datamodule", None))
        if not self._teacher_necks:
            necks: Necks = load_necks(self.teacher).requires_grad_(False).eval()
            self._teacher_necks.append(necks)

    def configure_model(self) -> None:
        """Build the student for this teacher, once."""
        if not hasattr(self, "student"):
            geometry = read_geometry(self.teacher)
            channels = geometry.trunk_channels if self.target == "trunk" else geometry.neck_channels
            student = self.build_student(out_channels=channels, grid=geometry.grid)
            if student.keeps_necks != (self.target == "trunk"):
                answer = "trunk" if student.keeps_necks else "pyramids"
                found = f"is {self.target}, but {type(student).__name__} gives the {answer}"
                raise ConfigError("model.target", found, answer, "Change the target or the student.")
            if self.compile_backend is not None:
                student.compile(backend=self.compile_backend)  # in place: names in checkpoints stay as they are
            self.student = student

    def adopt(self, student: Student, necks: Necks) -> None:
        """Take a student and the teacher's necks that were built elsewhere, instead of building and reading them."""
        self.student = student
        self._teacher_necks = [necks]

    @property
    def necks(self) -> Necks:
        """The teacher's two necks, frozen: map (B, C, h, w) to both pyramids."""
        return self._teacher_necks[0]

    @property
    def teacher_trunk_sha256(self) -> str | None:
        """Hash of the trunk that made the cache in use; None where the data do not tell."""
        datamodule = getattr(self._trainer, "datamodule", None)
        return cast(str | None, getattr(datamodule, "teacher_trunk_sha256", None))

    @property
    def training_identity(self) -> Identity:
        """What decides what is learned, apart from the student: data, loss, clipping, and the optimiser once built."""
        data = data_settings(getattr(self._trainer, "datamodule", None))
        return {"data": data, "trainer": trainer_settings(self._trainer), **self._settings}

    def forward(self, images: Tensor) -> Tensor | Pyramids:
        """Map images (B, 3, S, S) to the student's map (B, C, h, w) or its pyramids."""
        return cast(Tensor | Pyramids, self.student(images))

    def on_fit_start(self) -> None:
        """Move the necks beside the student."""
        self.necks.to(self.device)

    def on_train_start(self) -> None:
        """Say it when the student starts from nothing; forget when an earlier fit has measured."""
        self.gradient_meter.restart()
        fresh = self.global_step == 0  # also under strategies that restore a checkpoint after `on_fit_start`
        if fresh and self.student.config.get("pretrained") is None and self.trainer.is_global_zero:
            log.warning(
                "%s starts from RANDOM weights; model.student.init_args.pretrained takes a file of TinyViT weights or "
                "a timm name, where the student has the sizes of such weights.",
                type(self.student).__name__,
            )

    def on_validation_start(self) -> None:
        """Move the necks beside the student, also without a fit."""
        self.necks.to(self.device)

    def training_step(self, batch: DistillationBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        progress = Progress(self.global_step, self._total_steps)
        size = len(batch["image"])
        features = self.compare(batch, level_images=self.loss.pyramid_images(size))
        self.gradient_meter.keep(features, progress)
        with torch.autocast(self.device.type, enabled=False):  # losses compute in float32, their products too
            terms = self.loss(*features, progress)
        self._log("train", self._recent.add(terms), size)
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        return cast(Tensor, terms["loss"])

    def on_after_backward(self) -> None:
        """Log how hard each term pulls."""
        self.gradient_meter.measure_kept()
        self.log_dict(self.gradient_meter.tags)

    def validation_step(self, batch: DistillationBatch, batch_idx: int) -> dict[str, Any]:
        """Log loss and agreement; return what student and teacher say, for callbacks that show or use it.

        ``student_map`` and ``teacher_map`` are the trunk's, or the detector's at the trunk's grid where the student
        gives pyramids; ``student_levels`` and ``teacher_levels`` are six levels each.
        """
        size = len(batch["image"])
        features = self.compare(batch, level_images=size)
        with torch.autocast(self.device.type, enabled=False):
            terms = self.loss(*features, None)
        for name, agreement in AGREEMENT.items():
            terms[name] = torch.stack([agreement(*pair) for pair in features.compared]).mean()
        self._log("val", terms, size)
        for name, pair in features.levels.items():
            for measure in (cosine, relative_error):
                self.log(f"val_levels/{measure.__name__}_{name}", measure(*pair), batch_size=size, sync_dist=True)
        student_map, teacher_map = features.compared[0 if self.target == "trunk" else 2]
        return {
            "student_map": student_map,
            "teacher_map": teacher_map,
            "student_levels": features.student_levels,
            "teacher_levels": features.teacher_levels,
        }

    def _log(self, stage: str, terms: dict[str, Tensor], size: int) -> None:
        for name, term in terms.items():
            self.log(f"{stage}/{name}", term, prog_bar=name == "loss", batch_size=size, sync_dist=stage != "train")

    def compare(self, batch: DistillationBatch, *, level_images: int) -> Features:
        """Run the student, and the frozen necks where they are needed.

        Args:
            batch: Frames with the teacher's maps.
            level_images: Number of images, the first ones, whose levels are computed where the student gives a map.

        Raises:
            ConfigError: Student and cache disagree about the shape.
        """
        answer, teacher_map = self(batch["image"]), batch["teacher_map"]
        if isinstance(answer, Tensor):
            require_the_caches_shape(answer.shape, teacher_map.shape)
            if level_images == 0:
                return Features(answer, teacher_map, None, None)
            with torch.no_grad():
                teacher_levels = self._pyramids(teacher_map[:level_images])
            return Features(answer, teacher_map, self._pyramids(answer[:level_images]), teacher_levels)
        with torch.no_grad():
            teacher_levels = self._pyramids(teacher_map)
        levels = [level for pyramid in answer for level in pyramid]
        for ours, theirs in zip(levels, teacher_levels, strict=True):
            require_the_caches_shape(ours.shape, theirs.shape)
        return Features(None, None, levels, teacher_levels)

    def _pyramids(self, features: Tensor) -> list[Tensor]:
        return [level for pyramid in self.necks(features.float()) for level in pyramid]  # their weights are float32

    def configure_optimizers(self) -> Any:
        """Decay only what multiplies; warm up linearly, then fall along half a cosine wave.

        Raises:
            ConfigError: The run goes on from a checkpoint of another optimiser.
        """
        self._total_steps = total_steps(self.trainer)
        optimizer = self.build_optimizer(parameter_groups(self.student))
        self._settings["model.optimizer"] = optimizer_settings(optimizer)
        self.require_same_training()
        return cosine_schedule(self.trainer, optimizer, warmup=self.warmup, final=self.final_lr)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare the student's settings as well, and see that an average goes on as one.

        Raises:
            CheckpointError: It is of another student.
            ConfigError: A fit would go on with other data, another loss, optimiser or clipping, or without the average.
        """
        super().on_load_checkpoint(checkpoint)
        if self._trainer is None:
            return
        require_same_student(checkpoint.get("student", {}), self.student.describe(), str(self._trainer.ckpt_path))
        if self._trainer.state.fn == TrainerFn.FITTING:
            require_average(checkpoint, self._trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `load_student` needs, as plain values: the checkpoint must load with ``weights_only=True``."""
        super().on_save_checkpoint(checkpoint)
        origin = {"teacher": self.teacher, "teacher_trunk_sha256": self.teacher_trunk_sha256}
        checkpoint["student"] = {**self.student.describe(), **origin}
        if not is_plain(checkpoint.get("hyper_parameters", {})):
            del checkpoint["hyper_parameters"]  # factories given in Python; those from a recipe are plain

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the student alone, with copies of the teacher's necks where its design keeps them."""
        student = copy.deepcopy(self.student)
        if student.keeps_necks:
            student.attach_necks(self.necks.detector_neck, self.necks.tracker_neck)
        student.save_pretrained(folder, teacher=self.teacher, teacher_trunk_sha256=self.teacher_trunk_sha256)
