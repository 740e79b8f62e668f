"""One-to-one assignment of predictions to truth by minimal total cost.

Source: DETR (arXiv 2005.12872) with the focal cost of Deformable DETR; weights as in facebookresearch/sam3,
sam3/train/matcher.py (class 2, box 5, GIoU 2). Ours takes one prompt at a time: the number of prompts is small.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from datamodules.errors import UserError


@dataclass(frozen=True)
class MatchingCost:
    """Weights of the three costs by which a prediction is assigned to an object.

    Args:
        classification: Of the focal cost; high scores are preferred.
        l1: Of the L1 distance between boxes (centre, size), in units of the image.
        giou: Of 1 - GIoU.
    """

    classification: float = 2.0
    l1: float = 5.0
    giou: float = 2.0

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, truth: Tensor) -> Tensor:
        """Cost of assigning each of Q predictions to each of N objects.

        Args:
            logits: (Q,).
            boxes: (Q, 4), xyxy, in units of the image.
            truth: (N, 4), xyxy, in units of the image.

        Returns:
            (Q, N).
        """
        score = logits.sigmoid()
        missed = 0.25 * (1 - score) ** 2 * -torch.nn.functional.logsigmoid(logits)
        false_alarm = 0.75 * score**2 * -torch.nn.functional.logsigmoid(-logits)
        distance = torch.cdist(box_convert(boxes, "xyxy", "cxcywh"), box_convert(truth, "xyxy", "cxcywh"), p=1)
        overlap: Tensor = generalized_box_iou(boxes, truth)
        cost: Tensor = self.classification * (missed - false_alarm)[:, None] + self.l1 * distance - self.giou * overlap
        return cost


def match(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Assign every object to another prediction so that the total cost is minimal.

    Args:
        cost: (Q, N), predictions by objects; with Q < N the dearest objects stay unassigned.

    Returns:
        Indices of predictions and of objects, both of length min(Q, N), int64.

    Raises:
        UserError: A cost is not finite: the training has diverged.
    """
    costs = cost.detach().cpu().float().numpy()
    if not np.isfinite(costs).all():
        raise UserError(
            "the detector", "answers with infinity or what is not a number: the training has diverged", "numbers",
            "Train anew with a lower learning rate; after a long way, go on from the last checkpoint.",
        )  # fmt: skip
    rows, columns = linear_sum_assignment(costs)
    return (
        torch.as_tensor(rows, dtype=torch.long, device=cost.device),
        torch.as_tensor(columns, dtype=torch.long, device=cost.device),
    )
