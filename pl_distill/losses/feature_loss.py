"""What a loss between a student's and a teacher's features looks like to the training."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Progress(NamedTuple):
    """How far the training is: optimiser steps done, and in all."""

    step: int
    total_steps: int


class FeatureLoss(nn.Module):
    """A loss on the trunk's map and, where it asks for them, on the pyramids that the frozen necks make of it."""

    def wants_pyramids(self, step: int) -> bool:
        """Whether the pyramids are to be computed at this step; it costs a run of both necks forward and back."""
        raise NotImplementedError

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        student_pyramids: Sequence[Tensor] | None = None,
        teacher_pyramids: Sequence[Tensor] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """Compare the features of one batch.

        Args:
            student: Map (B, C, h, w); any float type, computed in float32.
            teacher: The same shape.
            student_pyramids: Levels (B, C', H, W) of all pyramids in one sequence. None: not at this step.
            teacher_pyramids: The same shapes.
            progress: Where a schedule stands. None: at its end, so that values of different times can be compared.

        Returns:
            "loss", the scalar that is to be minimised, and each of its terms without its weight under its own name.
        """
        raise NotImplementedError
