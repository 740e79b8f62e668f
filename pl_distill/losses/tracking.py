"""What SAM 3's tracker is trained on in each frame: masks, "can it be seen", and how good the mask is.

Source: SAM 2 (arXiv 2408.00714, section D.2): focal + dice on the best of several guessed masks, cross-entropy on
occlusion, L1 on the predicted IoU of each guess, none but occlusion where the object is hidden. What differs: weighted
cross-entropy instead of focal loss, which in short runs from scratch starts sooner.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from pl_distill.losses.masks import dice_loss, mask_bce, mask_iou


@dataclass(frozen=True)
class TrackingLoss:
    """The loss of one frame, averaged over objects.

    Args:
        mask_bce: Weight of the masks' cross-entropy.
        mask_dice: Weight of their dice loss.
        score: Weight of the cross-entropy of "can be seen".
        quality: Weight of the L1 distance of predicted and true IoU.
        mask_pixel_weight: How much more an object's pixel counts than a background pixel.
    """

    mask_bce: float = 3.0
    mask_dice: float = 1.0
    score: float = 0.5
    quality: float = 0.2
    mask_pixel_weight: float = 9.0

    def __call__(
        self, masks: Tensor, quality: Tensor, score: Tensor, truth: Tensor, visible: Tensor
    ) -> dict[str, Tensor]:
        """Compare N objects with the truth.

        Args:
            masks: (N, K, h, w) logits of K guesses each.
            quality: (N, K), their predicted IoU, 0-1.
            score: (N,), logit of "can be seen".
            truth: (N, h, w), the covered part of each pixel.
            visible: (N,), bool: whether the object can be seen; where not, only `score` counts.

        Returns:
            ``mask_bce``, ``mask_dice``, ``score`` and ``quality``, unweighted, and ``loss``, their weighted sum.
        """
        terms = {"score": F.binary_cross_entropy_with_logits(score, visible.to(score.dtype))}
        guesses = masks.shape[1]
        seen, true = masks[visible].flatten(0, 1), truth[visible].repeat_interleave(guesses, dim=0)
        bce = mask_bce(seen, true, positive_weight=self.mask_pixel_weight).view(-1, guesses)
        dice = dice_loss(seen, true).view(-1, guesses)
        best = (self.mask_bce * bce + self.mask_dice * dice).detach().argmin(1, keepdim=True)
        count = max(len(best), 1)
        terms["mask_bce"] = bce.gather(1, best).sum() / count
        terms["mask_dice"] = dice.gather(1, best).sum() / count
        terms["quality"] = (quality[visible].flatten() - mask_iou(seen, true)).abs().sum() / (count * guesses)
        terms["loss"] = sum((getattr(self, name) * value for name, value in terms.items()), score.new_zeros(()))
        return terms
