"""Mask IoU, non-maximum suppression and connected components without a package from the hub.

Source: transformers, models/sam3_video/modeling_sam3_video.py (`mask_iou`, `nms_masks`,
`_get_connected_components_with_padding`). Its NMS and components need the `kernels` package and are skipped without it,
so that one animal found twice is two animals for ever; its IoU makes an int64 tensor of N x M x H x W (26 GB for 200
queries). Ours give the same numbers: IoU from one matrix product of zeros and ones, which float32 sums exactly below
2**24 pixels.
"""

import cv2
import numpy as np
import torch
from torch import Tensor
from transformers.models.sam3_video import modeling_sam3_video as stock

from pl_distill.streaming.rebinding import rebound


def mask_iou_matrix(pred_masks: Tensor, gt_masks: Tensor) -> Tensor:
    """Return the IoU of masks (N, H, W) and (M, H, W), both bool, as (N, M) float32; 0 where both are empty."""
    with torch.autocast(pred_masks.device.type, enabled=False):  # bfloat16 cannot count beyond 256
        first, second = pred_masks.flatten(1).float(), gt_masks.flatten(1).float()
        intersection = first @ second.T
        union = first.sum(1)[:, None] + second.sum(1)[None] - intersection
    return intersection / union.clamp(min=1)


def nms_masks(pred_probs: Tensor, pred_masks: Tensor, prob_threshold: float, iou_threshold: float) -> Tensor:
    """Keep the best of those detections that show the same thing.

    Args:
        pred_probs: Shape (N,), scores 0-1.
        pred_masks: Shape (N, h, w), logits.
        prob_threshold: Only detections above it take part.
        iou_threshold: Of two whose IoU is above it, the one with the lower score goes.

    Returns:
        Shape (N,), bool: the detections above the score threshold that stay.
    """
    keep = pred_probs > prob_threshold
    candidates = keep.nonzero().flatten()
    order = candidates[pred_probs[candidates].argsort(descending=True, stable=True)]
    masks = pred_masks[order] > 0
    overlap = (mask_iou_matrix(masks, masks) > iou_threshold).cpu().numpy()
    gone = np.zeros(len(order), dtype=bool)
    for rank in range(len(order)):
        if not gone[rank]:
            gone[rank + 1 :] |= overlap[rank, rank + 1 :]
    keep[order[torch.from_numpy(gone).to(order.device)]] = False
    return keep


def connected_components(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Label the 8-connected components of masks.

    Args:
        mask: Shape (N, 1, H, W), bool or 0 and 1.

    Returns:
        Labels and areas, each (N, 1, H, W) int32: every pixel has the number and the area of its component, 0 where the
        mask is 0.
    """
    labels, areas = np.zeros(mask.shape, np.int32), np.zeros(mask.shape, np.int32)
    for index, picture in enumerate(mask[:, 0].to(torch.uint8).cpu().numpy()):
        _, labels[index, 0], statistics, _ = cv2.connectedComponentsWithStats(picture, connectivity=8)
        by_label = statistics[:, cv2.CC_STAT_AREA].astype(np.int32)
        by_label[0] = 0  # what is not in the mask
        areas[index, 0] = by_label[labels[index, 0]]
    return torch.from_numpy(labels).to(mask.device), torch.from_numpy(areas).to(mask.device)


fill_holes = rebound(stock.fill_holes_in_mask_scores, _get_connected_components_with_padding=connected_components)
"""transformers' `fill_holes_in_mask_scores` on the components above: small holes are filled, small specks removed."""
