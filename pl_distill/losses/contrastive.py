"""Pull embeddings of one animal together and push those of others apart.

Source: Khosla et al. 2020, "Supervised contrastive learning" (arXiv 2004.11362), equation 2: the mean over the
positives stands outside of the logarithm.
"""

import torch
from torch import Tensor


def supervised_contrastive(
    embeddings: Tensor, labels: Tensor, temperature: float = 0.1, groups: Tensor | None = None
) -> Tensor:
    """Return the loss, a scalar, 0 where each sample is nearest to its own kind by far.

    Args:
        embeddings: Shape (B, D), of length 1, float32.
        labels: Shape (B,): equal where it is the same animal. A sample without another of its kind is a negative only.
        temperature: Cosines are divided by it.
        groups: Shape (B,): only samples of one group are compared; None compares all. Animals of one pen share light
            and breed: what tells pens apart would otherwise be learned first, and it tells no animal apart.
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = (labels[:, None] == labels[None]) & ~itself
    unseen = itself if groups is None else itself | (groups[:, None] != groups[None])
    logits = (embeddings @ embeddings.T / temperature).masked_fill(unseen, -torch.inf)
    log_share = logits - logits.logsumexp(1, keepdim=True)
    counts = positive.sum(1)
    sums = log_share.masked_fill(~positive, 0).sum(1)
    anchors = counts > 0
    if not anchors.any():
        return embeddings.sum() * 0
    return -(sums[anchors] / counts[anchors]).mean()
