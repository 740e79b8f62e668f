"""How hard each term of a distillation's loss pulls, measured every so many steps beside the training."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pl_distill.losses.feature_loss import FeatureLoss, Progress
from pl_distill.losses.gradient_norms import gradient_norms, shares
from pl_distill.modules.features import Features

Compared = list[tuple[Tensor, Tensor]]
"""What the student gave beside what its teacher gave, (B, C, h, w) each: one map, or six levels."""


class GradientMeter:
    """Keeps the first images of a step whose turn it is, and measures them when its backward pass is done.

    Args:
        loss: Whose terms.
        pyramids: Makes the levels of both pyramids from a map.
        every: Measure at every n-th optimiser step; 0: never.
    """

    images = 4
    """Of a batch: enough to compare the terms with each other, at a fraction of the necks' work."""

    def __init__(self, loss: FeatureLoss, pyramids: Callable[[Tensor], Sequence[Tensor]], every: int) -> None:
        self.loss = loss
        self.pyramids = pyramids
        self.every = every
        self.tags: dict[str, Tensor] = {}  # what was measured last: the logger does not look at every step
        self._kept: tuple[Compared, Progress] | None = None
        self._kept_at: int | None = None  # optimiser step; several batches belong to one that accumulates

    def restart(self) -> None:
        """Forget at which step of an earlier fit something was kept."""
        self._kept_at = None

    def keep(self, features: Features, progress: Progress) -> None:
        """Keep the first images of a batch where one is due."""
        due = self.every > 0 and progress.step % self.every == 0
        if due and progress.step != self._kept_at:
            self._kept, self._kept_at = (features.first(self.images), progress), progress.step

    def measure_kept(self) -> None:
        """Measure what was kept, now that what the step needed for its own gradients is gone."""
        if self._kept is not None:
            self.measure(*self._kept)
            self._kept = None

    def measure(self, compared: Compared, progress: Progress) -> None:
        """Measure what each term contributes to the gradient of what the student gave."""
        student, teacher = ([*side] for side in zip(*compared, strict=True))
        with torch.autocast(student[0].device.type, enabled=False):
            if len(compared) == 1:
                norms = gradient_norms(self.loss, student[0], teacher[0], self.pyramids, progress)
            else:
                norms = gradient_norms(self.loss, student, teacher, self.pyramids, progress)
        self.tags = {f"gradient_norm/{name}": norm for name, norm in norms.items()}
        self.tags |= {f"gradient_share/{name}": share for name, share in shares(norms).items()}
