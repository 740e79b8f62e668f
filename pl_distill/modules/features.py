"""What student and teacher say about one batch: maps, or the levels of both pyramids, or both."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from pl_distill.losses.feature_loss import pairs
from pl_distill.models.sam3 import Pyramids

LEVEL_NAMES = [
    f"{pyramid}_{cells}x" for pyramid in Pyramids._fields for cells in (4, 2, 1)
]  # cells per cell of the map


class Features(NamedTuple):
    """What student and teacher say about one batch.

    Args:
        student_map: (B, C, h, w); None of a student that gives pyramids.
        teacher_map: The same of the teacher.
        student_levels: Six levels (B', C', H, W), the detector's three first, of the first B' images where the student
            gives a map; None where nobody asked for them.
        teacher_levels: The same of the teacher.
    """

    student_map: Tensor | None
    teacher_map: Tensor | None
    student_levels: Sequence[Tensor] | None
    teacher_levels: Sequence[Tensor] | None

    @property
    def compared(self) -> list[tuple[Tensor, Tensor]]:
        """What agreement is measured on, in float32: the maps, or without them the levels."""
        return pairs(self.student_map, self.teacher_map, self.student_levels, self.teacher_levels)

    def first(self, images: int) -> list[tuple[Tensor, Tensor]]:
        """Return what is `compared` of the first images, apart from any graph: views, of the precision it has."""
        if self.student_map is not None and self.teacher_map is not None:
            given = [(self.student_map, self.teacher_map)]
        else:
            given = list(zip(self.student_levels or (), self.teacher_levels or (), strict=True))
        return [(ours[:images].detach(), theirs[:images]) for ours, theirs in given]

    @property
    def levels(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The levels by name."""
        return dict(zip(LEVEL_NAMES, pairs(None, None, self.student_levels, self.teacher_levels), strict=True))
