"""What a loss between a student's and a teacher's features looks like to the training."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Progress(NamedTuple):
    """How far the training is: optimiser steps done, and in all."""

    step: int
    total_steps: int


class FeatureLoss(nn.Module):
    """A loss on the trunk's map and, where it asks for them, on the pyramids that the frozen necks make of it.

    A student that gives both pyramids has no trunk map: every term is then taken on the levels, each counting the same.
    """

    @property
    def uses_pyramids(self) -> bool:
        """Whether any term reads the pyramids of a student that gives the trunk's map."""
        return False

    def pyramid_images(self, images: int) -> int:
        """Return of how many of a batch's images the pyramids are wanted; each costs both necks forward and back.

        The images of a batch are drawn at random: a mean over some of them has the expectation of one over all.
        """
        return images if self.uses_pyramids else 0

    def weights_at(self, progress: Progress | None) -> dict[str, float]:
        """Return each term's weight in the loss at this point of the training; None: at its end."""
        raise NotImplementedError

    def forward(
        self,
        student: Tensor | None,
        teacher: Tensor | None,
        student_pyramids: Sequence[Tensor] | None = None,
        teacher_pyramids: Sequence[Tensor] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """Compare the features of one batch.

        Args:
            student: Map (B, C, h, w); any float type, computed in float32. None: the student gives pyramids only.
            teacher: The same shape.
            student_pyramids: Levels (B', C', H, W) of all pyramids in one sequence, of the first B' images where the
                student gives a map. None: of none.
            teacher_pyramids: The same shapes.
            progress: Where a schedule stands. None: at its end, so that values of different times can be compared.

        Returns:
            "loss", the scalar that is to be minimised, and each of its terms without its weight under its own name.
        """
        raise NotImplementedError


def pairs(
    student: Tensor | None,
    teacher: Tensor | None,
    student_pyramids: Sequence[Tensor] | None,
    teacher_pyramids: Sequence[Tensor] | None,
) -> list[tuple[Tensor, Tensor]]:
    """Return what of student and teacher is compared, in float32: their maps, or without maps level by level."""
    if student is not None and teacher is not None:
        return [(student.float(), teacher.float())]
    levels = zip(student_pyramids or (), teacher_pyramids or (), strict=True)
    return [(ours.float(), theirs.float()) for ours, theirs in levels]
