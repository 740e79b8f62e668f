"""How hard each term of a loss pulls: the norm of its gradient with respect to what the student gave.

A term's value says nothing about its share in the training: in EfficientSAM3's stage 1 a cosine term beside a squared
error of a thousand moves the student by a fraction of a percent, and its log, which has the total only, cannot tell.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pl_distill.losses.feature_loss import FeatureLoss, Progress


@torch.enable_grad()
def gradient_norms(
    loss: FeatureLoss,
    student: Tensor | Sequence[Tensor],
    teacher: Tensor | Sequence[Tensor],
    pyramids: Callable[[Tensor], Sequence[Tensor]],
    progress: Progress | None,
) -> dict[str, Tensor]:
    """Measure each weighted term apart from the training's own graph, which is neither kept nor changed.

    Args:
        loss: Whose terms.
        student: Its map (B, C, h, w), or its levels (B, C', H, W) where it gives both pyramids.
        teacher: The same shapes.
        pyramids: Makes the levels of both pyramids from a map; asked only where the loss uses them.
        progress: Where the schedules stand.

    Returns:
        Term -> norm of its part of the gradient, over the whole batch.
    """
    leaves = [one.detach().float().requires_grad_() for one in ([student] if isinstance(student, Tensor) else student)]
    if isinstance(teacher, Tensor):
        levels: tuple[Sequence[Tensor] | None, Sequence[Tensor] | None] = (None, None)
        if loss.uses_pyramids:
            with torch.no_grad():
                targets = pyramids(teacher)
            levels = (pyramids(leaves[0]), targets)
        terms = loss(leaves[0], teacher, *levels, progress)
    else:
        terms = loss(None, None, leaves, teacher, progress)
    weights = loss.weights_at(progress)
    for name in terms:  # without a map the terms of the pyramids carry the weights of those on the map
        on_map = name.removeprefix("pyramid_")
        if on_map not in terms and on_map in weights:
            weights[name] += weights.pop(on_map)
    norms = {}
    for name, term in terms.items():
        if name in weights:
            parts = torch.autograd.grad(weights[name] * term, leaves, retain_graph=True, allow_unused=True)
            squares = [part.square().sum() for part in parts if part is not None]
            norms[name] = torch.stack(squares).sum().sqrt() if squares else term.new_zeros(())
    return norms


def shares(norms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return each norm as a part of their sum, 0 to 1."""
    total = torch.stack(list(norms.values())).sum().clamp_min(torch.finfo(torch.float32).tiny)
    return {name: norm / total for name, norm in norms.items()}
