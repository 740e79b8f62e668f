"""Pictures of what the student sees: image, teacher's map, student's map, their difference, in TensorBoard."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib import colormaps
from torch import Tensor
from torch.nn import functional as F

from callbacks.resumed_curves import last_step

TAG = "features/image_teacher_student_error"  # the columns, from left to right


class FeaturePreview(Callback):
    """Draw pictures of the validation set under the tag `features/image_teacher_student_error`, the same at each time.

    Maps are shown by their three main directions of variation as red, green and blue. Basis and range are the teacher's
    for both, so that equal colours mean equal features. The error is ``||s - t||`` per cell over the mean ``||t||``:
    black is 0, bright is 1 or more, or no number. The rows are spread over the validation batches: neighbouring frames
    look alike.

    Modules whose validation step returns no maps have no pictures.

    Args:
        images: Rows of the picture.
        every_n_validations: Draw at each n-th validation.
        width: Width of each column in pixels.
    """

    def __init__(self, images: int = 4, every_n_validations: int = 1, width: int = 224) -> None:
        self.images = images
        self.every_n_validations = every_n_validations
        self.width = width
        self._validations = 0
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []  # images, teacher's and student's maps, some of a batch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting validations anew."""
        self._validations = 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the rows of a validation that was broken off."""
        self._rows = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what the validation step returned: a forward pass of our own would have to be joined by other ranks."""
        due = (
            isinstance(outputs, Mapping)
            and trainer.is_global_zero
            and self._validations % self.every_n_validations == 0
        )
        batches = trainer.num_val_batches[0]
        if due and not trainer.sanity_checking and batch_idx in spread(self.images, batches):
            share = max(1, math.ceil(self.images / batches))
            parts = (batch["image"], outputs["teacher_map"], outputs["student_map"])
            images, teacher, student = (part[:share].detach().float().cpu() for part in parts)
            self._rows.append((images, teacher, student))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, and count the validation."""
        if trainer.sanity_checking:
            return
        self._validations += 1
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if self._rows and boards:
            images, teacher, student = (torch.cat(part)[: self.images] for part in zip(*self._rows, strict=True))
            picture = preview(images, teacher, student, self.width)
            for board in boards:
                board.experiment.add_image(TAG, picture, last_step(trainer))
        self._rows = []


def spread(count: int, batches: int | float) -> set[int]:
    """Return up to `count` numbers of batches, from the first to the last; the first ones where there is no last."""
    if math.isinf(batches):
        return set(range(count))
    last = int(batches) - 1
    return {round(number * last / max(1, count - 1)) for number in range(count)}


def preview(images: Tensor, teacher: Tensor, student: Tensor, width: int) -> Tensor:
    """Compose the picture.

    Args:
        images: (N, 3, H, W) float32, mean and deviation 0.5 as SAM 3's processor gives them.
        teacher: Maps (N, C, h, w).
        student: The same shape.
        width: Side of each of the four squares of a row, in pixels.

    Returns:
        (3, N * width, 4 * width) float32, 0 to 1, on the CPU.
    """
    size = [width, width]
    pixels = F.interpolate(images * 0.5 + 0.5, size=size, mode="bilinear", antialias=True).clamp(0, 1)
    maps = [F.interpolate(part, size=size, mode="nearest") for part in (*in_teachers_colours(teacher, student),)]
    error = F.interpolate(_heat(relative_errors(student, teacher)), size=size, mode="nearest")
    columns = torch.cat([pixels, *maps, error], dim=3)  # (N, 3, width, 4 * width)
    return torch.cat(list(columns), dim=1)


def in_teachers_colours(teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    """Project both maps (N, C, h, w) on the teacher's three main directions; each to (N, 3, h, w) in 0 to 1.

    The directions are eigenvectors of the covariance, with a fixed sign: the same maps give the same colours at every
    call. Fewer than three channels leave the remaining colours grey.
    """
    vectors = teacher.movedim(1, -1).flatten(0, -2)  # (N*h*w, C)
    mean = vectors.mean(0)
    centred = (vectors - mean).double()
    _, directions = torch.linalg.eigh(centred.T @ centred)  # ascending; (C, C), one direction per column
    basis = directions[:, -3:].flip(1)
    strongest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    basis = (basis * strongest.sign()).float()
    colours = [(part.movedim(1, -1) - mean) @ basis for part in (teacher, student)]  # (N, h, w, 3)
    low = colours[0].flatten(0, -2).quantile(0.01, dim=0)
    high = colours[0].flatten(0, -2).quantile(0.99, dim=0)
    scaled = [((part - low) / (high - low).clamp_min(1e-6)).clamp(0, 1).movedim(-1, 1) for part in colours]
    grey = 3 - basis.shape[1]
    first, second = (F.pad(part, (0, 0, 0, 0, 0, grey), value=0.5) for part in scaled)
    return first, second


def relative_errors(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ``||s - t||`` of each cell over the mean ``||t||`` of its picture: maps (N, C, h, w) to (N, h, w)."""
    typical = teacher.norm(dim=1).mean((1, 2), keepdim=True).clamp_min(1e-6)
    errors: Tensor = (student - teacher).norm(dim=1) / typical
    return errors


def _heat(values: Tensor) -> Tensor:
    """Colour (N, h, w): 0 is black, 1 and more is bright, and so is what is no number; to (N, 3, h, w)."""
    colours = colormaps["inferno"](values.nan_to_num(nan=1.0).clamp(0, 1).numpy())[..., :3]
    return torch.from_numpy(colours.astype(np.float32)).movedim(-1, 1)
