"""Losses between mask logits and masks, one value per object.

Source: MaskFormer (arXiv 2107.06278): BCE + dice. The dice is the plain one, not the squared one.
"""

import torch.nn.functional as F
from torch import Tensor


def mask_bce(logits: Tensor, target: Tensor, *, positive_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy, averaged over each object's pixels.

    Args:
        logits: (N, H, W).
        target: (N, H, W), 0-1; a fraction where a pixel is partly covered.
        positive_weight: How much more a covered pixel counts; an object that fills 1 % of the picture vanishes
            without it.

    Returns:
        (N,); the mean is taken over the weights, so that `positive_weight` does not change the scale.
    """
    weight = 1 + (positive_weight - 1) * target
    loss = F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="none")
    return loss.flatten(1).sum(1) / weight.flatten(1).sum(1)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - dice coefficient of each object, smoothed by one pixel so that an empty mask has a gradient.

    Args:
        logits: (N, H, W).
        target: (N, H, W), 0-1.

    Returns:
        (N,), 0-1.
    """
    score = logits.sigmoid().flatten(1)
    truth = target.flatten(1)
    return 1 - (2 * (score * truth).sum(1) + 1) / (score.sum(1) + truth.sum(1) + 1)


def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of the thresholded masks (logit > 0, target >= 0.5).

    Args:
        logits: (N, H, W).
        target: (N, H, W), 0-1.

    Returns:
        (N,), 0-1; 1 where both are empty.
    """
    predicted = (logits > 0).flatten(1)
    truth = (target >= 0.5).flatten(1)
    intersection = (predicted & truth).sum(1).float()
    union = (predicted | truth).sum(1).float()
    return (intersection + (union == 0)) / union.clamp(min=1)
