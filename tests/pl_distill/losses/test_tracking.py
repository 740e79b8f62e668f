import math

import pytest
import torch

from pl_distill.losses.tracking import TrackingLoss


def case():
    truth = torch.zeros(2, 4, 4)
    truth[:, :2] = 1
    return 40 * truth[:, None] - 20, truth


def test_a_right_answer_costs_nothing():
    masks, truth = case()
    terms = TrackingLoss()(masks, torch.ones(2, 1), torch.full((2,), 20.0), truth, torch.tensor([True, True]))
    assert terms["loss"].item() == pytest.approx(0, abs=1e-5)


def test_a_hidden_object_teaches_only_that_it_is_hidden():
    masks, truth = case()
    masks = masks.clone().requires_grad_()
    terms = TrackingLoss()(-masks, torch.zeros(2, 1), torch.zeros(2), truth, torch.tensor([False, False]))
    assert terms["score"].item() == pytest.approx(math.log(2))
    assert terms["mask_bce"].item() == terms["mask_dice"].item() == terms["quality"].item() == 0
    terms["loss"].backward()
    assert masks.grad.abs().sum() == 0


def test_quality_learns_the_true_overlap_of_each_guess():
    masks, truth = case()
    guesses = torch.cat([masks, -masks], dim=1)  # right, and the opposite
    terms = TrackingLoss()(guesses, torch.full((2, 2), 0.75), torch.zeros(2), truth, torch.tensor([True, False]))
    assert terms["quality"].item() == pytest.approx((0.25 + 0.75) / 2)


def test_of_several_guesses_the_best_alone_is_drawn_to_the_truth():
    masks, truth = case()
    guesses = torch.cat([-masks, masks / 20, -masks / 20], dim=1).requires_grad_()
    terms = TrackingLoss()(guesses, torch.zeros(2, 3), torch.zeros(2), truth, torch.tensor([True, True]))
    alone = TrackingLoss()(masks / 20, torch.zeros(2, 1), torch.zeros(2), truth, torch.tensor([True, True]))
    assert terms["mask_bce"].item() == pytest.approx(alone["mask_bce"].item())
    assert terms["mask_dice"].item() == pytest.approx(alone["mask_dice"].item())
    terms["loss"].backward()
    assert (guesses.grad.abs().sum((0, 2, 3)) > 0).tolist() == [False, True, False]


def test_the_loss_is_the_weighted_sum():
    masks, truth = case()
    terms = TrackingLoss(2, 3, 4, 5)(-masks, torch.ones(2, 1), torch.zeros(2), truth, torch.tensor([True, False]))
    expected = 2 * terms["mask_bce"] + 3 * terms["mask_dice"] + 4 * terms["score"] + 5 * terms["quality"]
    torch.testing.assert_close(terms["loss"], expected)
