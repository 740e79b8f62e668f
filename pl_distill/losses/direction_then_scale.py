"""Four terms that compare a student's features with a teacher's: first where they point, then how long they are.

The paper (arXiv 2604.27128) names a four-term "direction then scale" loss and publishes neither terms nor weights;
these are ours. Direction and value, each on the trunk's map and on both pyramids, which the frozen necks make of it and
the heads read: a large error of the map in what the necks pass over costs nothing, a small one elsewhere may cost an
animal. Its reason for the order: SAM 3's trunk ends without a norm, its channels differ widely in scale, and a plain
squared error is spent on the largest of them (in EfficientSAM3's stage 1 the cosine term is at most 0.2 % of the total
for the same cause).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pl_distill.errors import ConfigError
from pl_distill.losses.feature_loss import FeatureLoss, Progress, pairs

EPSILON = 1e-6  # keeps divisions finite at an all-zero location; far below any norm of a trained trunk

RAMPED = ("value", "pyramid_value")


def direction(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over locations of ``1 - cos(s, t)``, s and t the channel vectors of maps (B, C, h, w); 0 to 2."""
    return (1 - F.cosine_similarity(student, teacher, dim=1, eps=EPSILON)).mean()


def pyramid_direction(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over levels of `direction`: each level (B, C, H, W) counts the same, however many cells it has; 0 to 2."""
    return torch.stack([direction(ours, theirs) for ours, theirs in zip(student, teacher, strict=True)]).mean()


def value(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of ``(s - t)^2`` over that of ``t^2`` for maps (B, C, h, w): the squared relative error; at least 0.

    One divisor for all channels: the heads read them as they are, and a channel a hundred times larger tells them more.
    """
    return (student - teacher).square().mean() / teacher.square().mean().clamp_min(EPSILON**2)


def pyramid_value(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over levels of `value`: each level (B, C, H, W) counts the same; at least 0."""
    return torch.stack([value(ours, theirs) for ours, theirs in zip(student, teacher, strict=True)]).mean()


class DirectionThenScaleLoss(FeatureLoss):
    """Weighted sum of `direction`, `pyramid_direction`, `value` and `pyramid_value`, the last two ramped in.

    ``loss = w_d * direction + w_pd * pyramid_direction + ramp * (w_v * value + w_pv * pyramid_value)``, whose mean does
    not depend on `pyramid_share`, as the terms are means over images. ``ramp`` is 0 before the interval `ramp`, 1 after
    it, and rises along half a cosine wave in between. A run that is resumed with another number of steps goes on with
    the ramp of that number: it moves and may fall.

    A student that gives both pyramids and no trunk map has two terms left, which carry the weights of all four.

    Args:
        direction_weight: Weight of the direction on the trunk's map.
        pyramid_direction_weight: Weight of the direction on both pyramids, as the frozen necks make them from the map.
        value_weight: Final weight of the value of the trunk's map.
        pyramid_value_weight: Final weight of the value of both pyramids.
        ramp: Where the ramp starts and ends, in parts of the training, 0 to 1.
        pyramid_share: Of how many of a batch's images the pyramids are computed, each a run of both necks forward and
            back: a part above 0, at most 1, rounded up to whole images.

    Raises:
        ConfigError: A weight is negative, all are zero, or the ramp runs backwards or beyond the training.
    """

    def __init__(
        self,
        direction_weight: float = 1.0,
        pyramid_direction_weight: float = 1.0,
        value_weight: float = 1.0,
        pyramid_value_weight: float = 1.0,
        ramp: tuple[float, float] = (0.1, 0.3),
        pyramid_share: float = 1.0,
    ) -> None:
        super().__init__()
        self.weights = {
            "direction": direction_weight,
            "pyramid_direction": pyramid_direction_weight,
            "value": value_weight,
            "pyramid_value": pyramid_value_weight,
        }
        if min(self.weights.values()) < 0 or not any(self.weights.values()):
            raise ConfigError(
                "loss", f"has the weights {self.weights}", "none negative, one positive", "Change a weight."
            )
        if not 0 <= ramp[0] <= ramp[1] <= 1:
            fix = "Give parts of the training, the start first."
            raise ConfigError("loss.ramp", f"is {list(ramp)}", "0 <= start <= end <= 1", fix)
        if not 0 < pyramid_share <= 1:
            raise ConfigError(
                "loss.pyramid_share",
                f"is {pyramid_share}",
                "above 0, at most 1",
                "Use weights of 0 to drop the terms.",
            )
        self.ramp = ramp
        self.pyramid_share = pyramid_share

    @property
    def uses_pyramids(self) -> bool:
        """Whether a term of the pyramids has a weight."""
        return self.weights["pyramid_direction"] > 0 or self.weights["pyramid_value"] > 0

    def pyramid_images(self, images: int) -> int:
        """Return of how many of a batch's images the pyramids are wanted."""
        return math.ceil(self.pyramid_share * images) if self.uses_pyramids else 0

    def weights_at(self, progress: Progress | None) -> dict[str, float]:
        """Return each term's weight in the loss at this point of the training."""
        ramp = 1.0 if progress is None else self.ramp_at(progress)
        return {name: weight * (ramp if name in RAMPED else 1.0) for name, weight in self.weights.items()}

    def ramp_at(self, progress: Progress) -> float:
        """Return how much of the values counts at this point of the training, 0 to 1."""
        step = progress.step
        start, end = (bound * progress.total_steps for bound in self.ramp)
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
        """Compare the features of one batch; see `FeatureLoss`. Without `progress` the ramp is 1."""
        weights, terms = self.weights_at(progress), {}
        if student is None or teacher is None:
            for on_map in ("direction", "value"):
                weights[f"pyramid_{on_map}"] += weights.pop(on_map)
        else:
            (maps,) = pairs(student, teacher, None, None)
            terms = {"direction": direction(*maps), "value": value(*maps)}
        if levels := pairs(None, None, student_pyramids, teacher_pyramids):
            ours, theirs = zip(*levels, strict=True)
            terms |= {
                "pyramid_direction": pyramid_direction(ours, theirs),
                "pyramid_value": pyramid_value(ours, theirs),
            }
        return {"loss": torch.stack([weights[name] * term for name, term in terms.items()]).sum(), **terms}
