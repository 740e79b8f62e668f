"""What others distil with, on the same cache and behind the same student: to be beaten, or to be used instead.

Each class names its source and where it differs. None of them has a schedule, and none reads the pyramids of a student
that gives the trunk's map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pl_distill.errors import ConfigError
from pl_distill.losses.direction_then_scale import direction
from pl_distill.losses.feature_loss import FeatureLoss, Progress, pairs


class Baseline(FeatureLoss):
    """A weighted sum of terms on the map alone, the same at every step."""

    weights: dict[str, float]

    def weights_at(self, progress: Progress | None) -> dict[str, float]:
        """Return the weights, which do not change."""
        return dict(self.weights)

    def terms(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """Compare two maps (B, C, h, w) in float32; every term of `weights`."""
        raise NotImplementedError

    def forward(
        self,
        student: Tensor | None,
        teacher: Tensor | None,
        student_pyramids: Sequence[Tensor] | None = None,
        teacher_pyramids: Sequence[Tensor] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """Compare the features of one batch; see `FeatureLoss`."""
        found = [self.terms(*pair) for pair in pairs(student, teacher, student_pyramids, teacher_pyramids)]
        terms = {name: torch.stack([one[name] for one in found]).mean() for name in self.weights}
        return {"loss": torch.stack([self.weights[name] * term for name, term in terms.items()]).sum(), **terms}


class MeanSquaredErrorLoss(Baseline):
    """MobileSAM and EdgeSAM (first phase): squared error, the mean over pictures, locations and channels.

    Source: github.com/chongzhou96/EdgeSAM, training/train.py. Their mask for padding is not needed: SAM 3 squashes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = {"mse": 1.0}

    def terms(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """Return ``mse``."""
        return {"mse": F.mse_loss(student, teacher)}


class EfficientSAM3Loss(Baseline):
    """EfficientSAM3 (stage 1): squared error summed over channels, the mean over locations, and one minus the cosine.

    Source: github.com/SimonZeng7108/efficientsam3, stage1. The first term is in the thousands and the second at most 2:
    it is a squared error in effect.

    Args:
        cosine_weight: Weight of the cosine term; theirs is 1.
    """

    def __init__(self, cosine_weight: float = 1.0) -> None:
        super().__init__()
        self.weights = {"sum_mse": 1.0, "direction": cosine_weight}

    def terms(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """Return ``sum_mse`` and ``direction``."""
        return {
            "sum_mse": (student - teacher).square().sum(dim=1).mean(),
            "direction": direction(student, teacher),
        }


class RelationalLoss(Baseline):
    """LightlyTrain's third distillation method: the teacher's similarities, as distributions, matched by their KL.

    ``between`` compares the similarities of each picture's mean vector to reference vectors of the teacher's,
    ``within`` those of each location to the other locations of its picture; all vectors have length 1, so that nothing
    is learned about scale.

    Source: docs.lightly.ai/train, "distillation", method v3 (the idea; no code of it is here). What differs: the
    reference vectors are locations of this batch instead of a queue of earlier ones, so that nothing has to be
    checkpointed; of large maps evenly spread locations are compared; pictures are not mixed.

    Args:
        temperature: Divides similarities before the softmax; smaller looks at the nearest only.
        locations: At most so many per picture; their square is the memory of the comparison.

    Raises:
        ConfigError: A number is not positive.
    """

    def __init__(self, temperature: float = 0.07, locations: int = 1024) -> None:
        super().__init__()
        if temperature <= 0 or locations < 2:
            found = f"has temperature {temperature} and {locations} locations"
            raise ConfigError("loss", found, "a positive temperature and at least 2 locations", "Change them.")
        self.weights = {"between": 1.0, "within": 1.0}
        self.temperature = temperature
        self.locations = locations

    def terms(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """Return ``between`` and ``within``."""
        ours, theirs = (self._spread(F.normalize(features, dim=1)) for features in (student, teacher))  # (B, n, C)
        references = theirs.flatten(0, 1)[:: max(1, len(theirs))]  # n of the B * n, of all pictures in turn
        global_ours, global_theirs = (
            F.normalize(features.mean(dim=(2, 3)), dim=1) for features in (student, teacher)
        )  # (B, C)
        return {
            "between": self._divergence(global_ours @ references.T, global_theirs @ references.T),
            "within": self._divergence(_to_others(ours @ ours.mT), _to_others(theirs @ theirs.mT)),
        }

    def _spread(self, features: Tensor) -> Tensor:
        """Take evenly spread locations: (B, C, h, w) to (B, n, C)."""
        vectors = features.flatten(2).mT
        return vectors[:, :: -(-vectors.shape[1] // self.locations)]

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean over all but the last dimension of the KL divergence of the softmax of similarities (..., n)."""
        ours, theirs = ((one / self.temperature).log_softmax(dim=-1).flatten(0, -2) for one in (student, teacher))
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def _to_others(similarities: Tensor) -> Tensor:
    """Leave the diagonal out, (B, n, n) to (B, n, n - 1): each to itself is 1 and would take most of the softmax."""
    batch, count, _ = similarities.shape
    # without the first value every row of n + 1 ends in one of the diagonal
    rows = similarities.flatten(1)[:, 1:].reshape(batch, count - 1, count + 1)
    return rows[..., :-1].reshape(batch, count, count - 1)
