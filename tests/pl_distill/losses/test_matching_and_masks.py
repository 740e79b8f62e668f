import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import UserError
from pl_distill.losses.masks import dice_loss, mask_bce, mask_iou
from pl_distill.losses.matching import MatchingCost, match


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(0, 4), st.integers(0, 2**31))
def test_the_assignment_is_the_cheapest_of_all(queries, objects, seed):
    cost = torch.rand(queries, objects, generator=torch.Generator().manual_seed(seed))
    rows, columns = match(cost)
    assert len(rows) == len(columns) == min(queries, objects)
    assert len(set(rows.tolist())) == len(rows)
    short, long = sorted((queries, objects))
    table = cost if queries <= objects else cost.T
    cheapest = min(
        (sum(float(table[i, j]) for i, j in enumerate(order)) for order in itertools.permutations(range(long), short)),
        default=0.0,
    )
    assert float(cost[rows, columns].sum()) == pytest.approx(cheapest, abs=1e-5)


def test_costs_by_hand():
    box, far = torch.tensor([[0.0, 0.0, 0.5, 0.5]]), torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    logits = torch.zeros(1)
    # equal boxes: no distance, GIoU 1; the focal cost at score 0.5 is (0.25 - 0.75) * 0.25 * ln 2
    focal = -0.5 * 0.25 * math.log(2)
    assert float(MatchingCost(2, 5, 2)(logits, box, box)) == pytest.approx(2 * focal - 2, abs=1e-5)
    # corner to corner: centres differ by 0.5 in x and y, no overlap, half of the hull is empty: GIoU -0.5
    assert float(MatchingCost(2, 5, 2)(logits, box, far)) == pytest.approx(2 * focal + 5 * 1.0 + 2 * 0.5, abs=1e-5)


def test_a_higher_score_is_cheaper():
    box = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5]])
    cost = MatchingCost()(torch.tensor([-1.0, 1.0]), box, box[:1])
    assert cost[1] < cost[0]


def test_masks_by_hand():
    logits = torch.tensor([[[20.0, -20.0], [-20.0, -20.0]]])
    same = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    other = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    both = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert mask_bce(logits, same).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(logits, same).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(logits, other).item() == pytest.approx(1 - 1 / 3)  # smoothed by one pixel
    assert mask_iou(logits, both).item() == pytest.approx(0.5)
    assert mask_iou(logits, other).item() == 0
    assert mask_iou(-logits.abs(), torch.zeros(1, 2, 2)).item() == 1  # both empty
    # weight 3 on the one covered pixel of four, which costs 20: 3 * 20 / (3 + 3), beside one false pixel: 20 / 6
    assert mask_bce(logits, other, positive_weight=3.0).item() == pytest.approx((3 * 20 + 20) / 6, rel=1e-4)


def test_an_empty_mask_still_pulls():
    logits = torch.full((1, 4, 4), -3.0, requires_grad=True)
    dice_loss(logits, torch.ones(1, 4, 4)).sum().backward()
    assert (logits.grad < 0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_training_that_has_diverged_is_told_so(value):
    """Instead of by scipy, in the words of nothing that was trained."""
    cost = torch.zeros(3, 2)
    cost[1, 0] = value
    with pytest.raises(UserError, match="the training has diverged"):
        match(cost)
