"""Four terms that compare a student's features with a teacher's: first where they point, then how long they are.

The paper (arXiv 2604.27128) names a four-term "direction then scale" loss and publishes neither terms nor weights;
these are ours. Its reason: SAM 3's trunk ends without a norm, so its channels differ widely in scale, and a plain
squared error is spent on the largest of them (in EfficientSAM3's stage 1 the cosine term is at most 0.2 % of the total
for the same cause).
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pl_distill.errors import ConfigError
from pl_distill.losses.feature_loss import FeatureLoss, Progress, pairs

EPSILON = (
    1e-6  # keeps the logarithm and the division finite at an all-zero location; far below any norm of a trained trunk
)

RAMPED = ("scale", "value")


def direction(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over locations of ``1 - cos(s, t)``, s and t the channel vectors of maps (B, C, h, w); 0 to 2."""
    return (1 - F.cosine_similarity(student, teacher, dim=1, eps=EPSILON)).mean()


def pyramid_direction(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over levels of `direction`: each level (B, C, H, W) counts the same, however many cells it has; 0 to 2."""
    return torch.stack([direction(ours, theirs) for ours, theirs in zip(student, teacher, strict=True)]).mean()


def scale(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over locations of ``|log ||s|| - log ||t|| |`` for maps (B, C, h, w); 0.1: norms are about 10 % off."""
    ratio = _log_norm(student) - _log_norm(teacher)
    return ratio.abs().mean()


def value(student: Tensor, teacher: Tensor, delta: float = 1.0) -> Tensor:
    """Mean of ``huber((s - t) / rms_c)`` over maps (B, C, h, w); at least 0.

    ``rms_c`` is the root mean square of the teacher's channel c over batch and locations, so that a channel a hundred
    times larger weighs no more than its neighbours; the Huber loss is quadratic to `delta` and linear beyond.
    """
    rms = teacher.square().mean(dim=(0, 2, 3), keepdim=True).sqrt().clamp_min(EPSILON)
    return F.huber_loss(student / rms, teacher / rms, delta=delta)


def _log_norm(features: Tensor) -> Tensor:
    """Logarithm of the channel vectors' norms: (B, C, h, w) to (B, h, w)."""
    return 0.5 * (features.square().sum(dim=1) + EPSILON**2).log()


class DirectionThenScaleLoss(FeatureLoss):
    """Weighted sum of `direction`, `pyramid_direction`, `scale` and `value`, the last two ramped in.

    ``loss = w_d * direction + w_p * n * pyramid_direction + ramp * (w_s * scale + w_v * value)``, where n is
    `pyramid_every` on the steps that compute the pyramids and 0 on the others, so that its mean does not depend on how
    often it is computed; nor does it on `pyramid_share`, as the term is a mean over images. ``ramp`` is 0 before the
    interval `ramp`, 1 after it, and rises along half a cosine wave in between.

    A student that gives both pyramids and no trunk map has three terms left: the two directions are one then,
    `pyramid_direction` with both weights at every step, and `scale` and `value` are means over its levels.

    Args:
        direction_weight: Weight of the direction on the trunk's map.
        pyramid_weight: Weight of the direction on both pyramids, as the frozen necks make them from the map.
        scale_weight: Final weight of the scale term.
        value_weight: Final weight of the value term.
        ramp: Where the ramp starts and ends.
        ramp_unit: Whether `ramp` counts "fraction" (0 to 1 of the training) or optimiser "steps".
        pyramid_every: Compute the pyramids at every n-th step; each costs a run of both necks forward and back.
        pyramid_share: Of how many of a batch's images they are computed then: a part above 0, at most 1, rounded up to
            whole images. For the same work, few images at each step keep less memory than all of them at some.
        huber_delta: Where the value term turns linear, in root mean squares of a channel.

    Raises:
        ConfigError: A weight is negative, all are zero, or the ramp runs backwards.
    """

    def __init__(
        self,
        direction_weight: float = 1.0,
        pyramid_weight: float = 1.0,
        scale_weight: float = 0.5,
        value_weight: float = 1.0,
        ramp: tuple[float, float] = (0.1, 0.3),
        ramp_unit: Literal["fraction", "steps"] = "fraction",
        pyramid_every: int = 1,
        pyramid_share: float = 1.0,
        huber_delta: float = 1.0,
    ) -> None:
        super().__init__()
        self.weights = {
            "direction": direction_weight,
            "pyramid_direction": pyramid_weight,
            "scale": scale_weight,
            "value": value_weight,
        }
        if min(self.weights.values()) < 0 or not any(self.weights.values()):
            raise ConfigError(
                "loss", f"has the weights {self.weights}", "none negative, one positive", "Change a weight."
            )
        if not 0 <= ramp[0] <= ramp[1]:
            raise ConfigError("loss.ramp", f"is {list(ramp)}", "0 <= start <= end", "Exchange the two numbers.")
        if ramp_unit == "fraction" and ramp[1] > 1:
            fix = "Set ramp_unit to steps, or give fractions."
            raise ConfigError("loss.ramp", f"ends at {ramp[1]} of the training", "at most 1", fix)
        if pyramid_every < 1:
            raise ConfigError(
                "loss.pyramid_every", f"is {pyramid_every}", "1 or more", "Use pyramid_weight 0 to drop the term."
            )
        if not 0 < pyramid_share <= 1:
            raise ConfigError(
                "loss.pyramid_share",
                f"is {pyramid_share}",
                "above 0, at most 1",
                "Use pyramid_weight 0 to drop the term.",
            )
        self.ramp = ramp
        self.ramp_unit = ramp_unit
        self.pyramid_every = pyramid_every
        self.pyramid_share = pyramid_share
        self.huber_delta = huber_delta

    @property
    def uses_pyramids(self) -> bool:
        """Whether the pyramid term has a weight."""
        return self.weights["pyramid_direction"] > 0

    def pyramid_images(self, step: int, images: int) -> int:
        """Return of how many of a step's images the pyramids are wanted."""
        due = self.uses_pyramids and step % self.pyramid_every == 0
        return math.ceil(self.pyramid_share * images) if due else 0

    def weights_at(self, progress: Progress | None) -> dict[str, float]:
        """Return each term's weight in the loss at this point of the training, averaged over steps."""
        ramp = 1.0 if progress is None else self.ramp_at(progress)
        return {name: weight * (ramp if name in RAMPED else 1.0) for name, weight in self.weights.items()}

    def ramp_at(self, progress: Progress) -> float:
        """Return how much of `scale` and `value` counts at this point of the training, 0 to 1."""
        step, unit = progress.step, progress.total_steps if self.ramp_unit == "fraction" else 1
        start, end = self.ramp[0] * unit, self.ramp[1] * unit
        if step >= end:
            return 1.0
        if step <= start:
            return 0.0
        return 0.5 - 0.5 * math.cos(math.pi * (step - start) / (end - start))

    def forward(
        self,
        student: Tensor | None,
        teacher: Tensor | None,
        student_pyramids: Sequence[Tensor] | None = None,
        teacher_pyramids: Sequence[Tensor] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """Compare the features of one batch; see `FeatureLoss`. Without `progress` the ramp is 1 and n is 1."""
        compared = pairs(student, teacher, student_pyramids, teacher_pyramids)
        weights = self.weights_at(progress)
        terms = {
            "scale": torch.stack([scale(*pair) for pair in compared]).mean(),
            "value": torch.stack([value(*pair, delta=self.huber_delta) for pair in compared]).mean(),
        }
        if student is None:
            weights["pyramid_direction"] += weights.pop("direction")
        else:
            terms["direction"] = direction(*compared[0])
            weights["pyramid_direction"] *= 1 if progress is None else self.pyramid_every
        levels = pairs(None, None, student_pyramids, teacher_pyramids)
        if levels:
            terms["pyramid_direction"] = pyramid_direction(*zip(*levels, strict=True))
        return {"loss": torch.stack([weights[name] * term for name, term in terms.items()]).sum(), **terms}
