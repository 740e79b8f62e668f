"""What SAM 3's detector is trained on: boxes, scores, presence, masks and two dense signals.

Source: facebookresearch/sam3, sam3/train/loss/loss_fns.py (Boxes, IABCEMdetr, Masks, SemanticSegCriterion) and its
weights for boxes. What differs: a matched query's score learns its box IoU, with the unmatched ones down-weighted by
their own confidence (the varifocal form of RT-DETR, arXiv 2304.08069), so that the score says how good the box is; and
the encoder's tokens learn the box of the object they lie on, which gives the trunk a signal before any query matches.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou, generalized_box_iou_loss

from pl_distill.losses.masks import dice_loss, mask_bce
from pl_distill.losses.matching import MatchingCost, match
from pl_distill.models.sam3_detector import DetectorOutput


@dataclass(frozen=True)
class DetectionWeights:
    """How much each term of the loss counts.

    Args:
        score: Of the classification of queries.
        l1: Of the L1 distance of boxes.
        giou: Of 1 - GIoU of boxes.
        near: Of the same two, weighted as above, of queries that were not matched but lie on an object.
        presence: Of "is there any object of this prompt".
        mask_bce: Of the cross-entropy of matched masks.
        mask_dice: Of the dice loss of matched masks.
        semantic: Of cross-entropy + dice of the union of all objects.
        tokens: Of the boxes and objectness that the encoder's tokens predict.
    """

    score: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    near: float = 1.0
    presence: float = 1.0
    mask_bce: float = 5.0
    mask_dice: float = 2.0
    semantic: float = 5.0
    tokens: float = 2.0


@dataclass(frozen=True)
class PromptTruth:
    """The objects that one prompt should find; N may be 0.

    Args:
        boxes: (N, 4), xyxy, in units of the image.
        masks: (N, 4g, 4g), the covered fraction of each pixel, or None where the data has boxes only.
    """

    boxes: Tensor
    masks: Tensor | None = None


def object_counts(truth: list[PromptTruth], with_masks: Tensor) -> Tensor:
    """Count the objects of P prompts, and those whose masks are compared: (2,)."""
    sizes = torch.tensor([float(len(one.boxes)) for one in truth], device=with_masks.device)
    return torch.stack([sizes.sum(), sizes[with_masks].sum()])


@dataclass(frozen=True)
class DetectionLoss:
    """The sum of all terms over decoder layers, divided by the number of objects that they are about.

    Args:
        cost: By what queries are assigned to objects, in every layer anew.
        weights: How much each term counts.
        focus: Exponent by which an unmatched query's own score weighs its loss.
        mask_pixel_weight: How much more an object's pixel counts than a background pixel.
        near_iou: From which IoU on a query that was not matched learns the box of the object it lies on.
    """

    cost: MatchingCost = field(default_factory=MatchingCost)
    weights: DetectionWeights = field(default_factory=DetectionWeights)
    focus: float = 2.0
    mask_pixel_weight: float = 5.0
    near_iou: float = 0.3

    def __call__(
        self,
        output: DetectorOutput,
        token_boxes: Tensor,
        truth: list[PromptTruth],
        with_masks: Tensor,
        counts: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compare the detector's answer with the truth.

        Args:
            output: For P prompts.
            token_boxes: (P, g * g, 5), what the encoder's tokens predict: objectness logit, then logits of the
                distances from the token's centre to the box's left, top, right, bottom, in units of the image.
            truth: Of length P.
            with_masks: (P,), bool, as given to `detect`.
            counts: (2,), as `object_counts` gives them; of several ranks, whose gradients are averaged, the mean of
                theirs, so that every object counts alike. None: those of `truth`.

        Returns:
            The terms by name, unweighted, averaged over decoder layers, and ``loss``, their weighted sum.
        """
        counts = object_counts(truth, with_masks) if counts is None else counts
        objects, masked = counts.clamp(min=1).unbind()
        terms: dict[str, Tensor] = dict.fromkeys(
            ("score", "l1", "giou", "near", "presence", "mask_bce", "mask_dice", "semantic", "tokens"),
            output.logits.new_zeros(()),
        )
        present = torch.tensor([float(len(one.boxes) > 0) for one in truth], device=output.logits.device)
        layers = len(output.logits)
        mask_row = with_masks.cumsum(0) - 1
        for layer in range(layers):
            terms["presence"] = terms["presence"] + (
                F.binary_cross_entropy_with_logits(output.presence_logits[layer], present) / layers
            )
            for prompt, one in enumerate(truth):
                logits, boxes = output.logits[layer, prompt], output.boxes[layer, prompt]
                queries, targets = match(self.cost(logits, boxes, one.boxes))
                matched, true_boxes = boxes[queries], one.boxes[targets]
                terms["score"] = terms["score"] + self.score(logits, queries, matched, true_boxes) / (objects * layers)
                terms["l1"] = terms["l1"] + _l1(matched, true_boxes) / (objects * layers)
                giou = generalized_box_iou_loss(matched, true_boxes, reduction="sum")
                terms["giou"] = terms["giou"] + giou / (objects * layers)
                near = self.near(boxes, queries, one.boxes)
                terms["near"] = terms["near"] + near * len(one.boxes) / (objects * layers)
                if layer == layers - 1 and one.masks is not None and with_masks[prompt]:
                    mask_logits, true_masks = output.masks[mask_row[prompt], queries], one.masks[targets]
                    bce = mask_bce(mask_logits, true_masks, positive_weight=self.mask_pixel_weight)
                    terms["mask_bce"] = terms["mask_bce"] + bce.sum() / masked
                    terms["mask_dice"] = terms["mask_dice"] + dice_loss(mask_logits, true_masks).sum() / masked
        terms["tokens"] = sum((_token_loss(token_boxes[i], one.boxes) for i, one in enumerate(truth)), terms["tokens"])
        terms["tokens"] = terms["tokens"] / len(truth)
        terms["semantic"] = self._semantic(output, truth, with_masks)
        terms["loss"] = sum(
            (getattr(self.weights, name) * value for name, value in terms.items()), output.logits.new_zeros(())
        )
        return terms

    def score(self, logits: Tensor, queries: Tensor, matched: Tensor, truth: Tensor) -> Tensor:
        """Sum over queries of the classification loss: matched ones learn their IoU, the others 0.

        Args:
            logits: (Q,).
            queries: (N,), the matched ones.
            matched: (N, 4), their boxes, xyxy.
            truth: (N, 4), xyxy.
        """
        with torch.no_grad():
            quality = torch.zeros_like(logits)
            weight = logits.sigmoid() ** self.focus
            if len(queries):
                quality[queries] = box_iou(matched, truth).diagonal()
                weight[queries] = 1.0
        return F.binary_cross_entropy_with_logits(logits, quality, weight=weight, reduction="sum")

    def near(self, boxes: Tensor, queries: Tensor, truth: Tensor) -> Tensor:
        """Average over unmatched queries that lie on an object of the loss of their boxes, 0 without one.

        One-to-one matching leaves most queries without a box to learn: with 36 queries and eight animals the decoder's
        boxes stayed behind those that a linear layer reads off the encoder's tokens.

        Args:
            boxes: (Q, 4), xyxy.
            queries: (N,), the matched ones.
            truth: (N, 4), xyxy.
        """
        free = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
        free[queries] = False
        if not len(truth) or not free.any():
            return boxes.sum() * 0
        with torch.no_grad():
            overlap, owner = box_iou(boxes[free], truth).max(1)
            chosen = overlap >= self.near_iou
        if not chosen.any():
            return boxes.sum() * 0
        guess, target = boxes[free][chosen], truth[owner[chosen]]
        giou = generalized_box_iou_loss(guess, target, reduction="mean")
        near: Tensor = self.weights.l1 * _l1(guess, target) / len(guess) + self.weights.giou * giou
        return near

    def _semantic(self, output: DetectorOutput, truth: list[PromptTruth], with_masks: Tensor) -> Tensor:
        wanted = [one for one, wants in zip(truth, with_masks.tolist(), strict=True) if wants]
        known = [i for i, one in enumerate(wanted) if one.masks is not None]
        if not known:
            return output.semantic.sum() * 0
        unions = []
        for i in known:
            masks = wanted[i].masks
            assert masks is not None
            unions.append(masks.amax(0) if len(masks) else torch.zeros_like(output.semantic[i]))
        union = torch.stack(unions)
        logits = output.semantic[known]
        return (mask_bce(logits, union) + dice_loss(logits, union)).mean()


TYPICAL_DISTANCE = 0.08
"""From a token to an edge of its object's box, in units of the image; training starts there."""


class TokenBoxHead(nn.Module):
    """Predicts, at each token of the encoder, whether an object lies there and its box; used in training only.

    Args:
        width: Channels of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 5)
        # From a sigmoid of 0.5 every box starts as large as the picture, is pushed together and ends with sides of 0,
        # where the sigmoid has no slope: within a thousand steps no token predicted a box any more.
        nn.init.normal_(self.linear.weight, std=0.01)
        with torch.no_grad():
            self.linear.bias.copy_(torch.logit(torch.tensor([0.1, *[TYPICAL_DISTANCE] * 4])))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (P, g * g, D) to (P, g * g, 5)."""
        out: Tensor = self.linear(tokens)
        return out


def _l1(boxes: Tensor, truth: Tensor) -> Tensor:
    return F.l1_loss(box_convert(boxes, "xyxy", "cxcywh"), box_convert(truth, "xyxy", "cxcywh"), reduction="sum")


def _token_centres(grid: int, device: torch.device) -> Tensor:
    steps = (torch.arange(grid, device=device) + 0.5) / grid
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)  # (g * g, 2)


def _token_loss(predicted: Tensor, boxes: Tensor) -> Tensor:
    """Objectness and box of each token; a token belongs to the object of nearest centre among those that contain it."""
    grid = round(len(predicted) ** 0.5)
    centres = _token_centres(grid, predicted.device)
    objectness, distances = predicted[:, 0], predicted[:, 1:].sigmoid()
    if not len(boxes):
        return F.binary_cross_entropy_with_logits(objectness, torch.zeros_like(objectness))
    half = box_convert(boxes, "xyxy", "cxcywh")
    offset = (centres[:, None] - half[None, :, :2]).abs() / (half[None, :, 2:] / 2)  # 1 at the box's edge
    radius = offset.amax(-1)  # (g * g, N)
    nearest, owner = radius.min(1)
    inside = nearest < 0.8
    objectness_loss = F.binary_cross_entropy_with_logits(objectness, inside.float())
    if not inside.any():
        return objectness_loss
    here, box = centres[inside], boxes[owner[inside]]
    guess = torch.cat([here - distances[inside, :2], here + distances[inside, 2:]], dim=1)
    giou: Tensor = generalized_box_iou_loss(guess, box, reduction="mean")
    return objectness_loss + giou + 5 * F.l1_loss(guess, box)
