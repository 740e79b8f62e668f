import math

import pytest
import torch

from pl_distill.losses.detection import DetectionLoss, DetectionWeights, PromptTruth, TokenBoxHead, object_counts
from pl_distill.models.sam3_detector import DetectorOutput

GRID, SIZE, QUERIES = 4, 16, 3
BOX = torch.tensor([[0.25, 0.25, 0.75, 0.5]])


def mask_of(boxes):
    masks = torch.zeros(len(boxes), SIZE, SIZE)
    for mask, box in zip(masks, (boxes * SIZE).long(), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = 1
    return masks


def answer(prompts, *, layers=2, masks=1, logit=8.0):
    """Query 1 finds `BOX` in every layer and prompt, with its mask; the others say no."""
    logits = torch.full((layers, prompts, QUERIES), -8.0)
    logits[..., 1] = logit
    boxes = torch.tensor([0.0, 0.0, 0.1, 0.1]).repeat(layers, prompts, QUERIES, 1)
    boxes[..., 1, :] = BOX
    found = torch.full((masks, QUERIES, SIZE, SIZE), -10.0)
    found[:, 1] += 20 * mask_of(BOX)[0]
    union = (20 * mask_of(BOX) - 10).repeat(masks, 1, 1)
    presence = torch.full((layers, prompts), 8.0)
    return DetectorOutput(logits, boxes, presence, torch.zeros(prompts, GRID * GRID, 8), found, union)


def nothing_in_tokens(prompts):
    return torch.cat([torch.full((prompts, GRID * GRID, 1), -20.0), torch.zeros(prompts, GRID * GRID, 4)], 2)


def compare(output, truth, with_masks, loss=None):
    tokens = nothing_in_tokens(len(truth))
    return (loss or DetectionLoss())(output, tokens, truth, torch.tensor(with_masks))


def test_a_right_answer_costs_almost_nothing_and_the_score_learns_the_overlap():
    truth = [PromptTruth(BOX, mask_of(BOX))]
    terms = compare(answer(1), truth, [True])
    for name in ("l1", "giou", "mask_bce", "mask_dice", "semantic"):
        assert terms[name].item() == pytest.approx(0, abs=1e-3), name
    assert terms["score"].item() == pytest.approx(math.log(1 + math.exp(-8)), abs=1e-4)
    # half of the box found: a score of 1 is too much then
    half = answer(1)
    half.boxes[:, :, 1] = torch.tensor([0.25, 0.25, 0.5, 0.5])
    assert compare(half, truth, [True])["score"].item() == pytest.approx(0.5 * 8, rel=1e-2)


def test_a_word_for_nothing_teaches_presence_and_scores_only():
    terms = compare(answer(1, masks=0), [PromptTruth(torch.zeros(0, 4), torch.zeros(0, SIZE, SIZE))], [False])
    assert terms["presence"].item() == pytest.approx(8, rel=1e-3)
    assert terms["score"].item() == pytest.approx(8, rel=1e-2)  # query 1 is sure and wrong; the others are right
    assert terms["l1"].item() == terms["mask_bce"].item() == terms["semantic"].item() == 0


def test_boxes_without_masks_are_enough():
    terms = compare(answer(1, masks=0), [PromptTruth(BOX)], [False])
    assert terms["mask_bce"].item() == terms["semantic"].item() == 0
    assert terms["l1"].item() == pytest.approx(0, abs=1e-6)


def test_masks_are_compared_with_the_prompt_they_were_computed_for():
    """Masks exist for the wanted prompts only; the second prompt's are in the first row."""
    truth = [PromptTruth(torch.zeros(0, 4)), PromptTruth(BOX, mask_of(BOX))]
    terms = compare(answer(2, masks=1), truth, [False, True])
    assert terms["mask_bce"].item() == pytest.approx(0, abs=1e-3)
    wrong = [PromptTruth(torch.zeros(0, 4)), PromptTruth(BOX, mask_of(torch.tensor([[0.0, 0.5, 0.25, 1.0]])))]
    assert compare(answer(2, masks=1), wrong, [False, True])["mask_bce"].item() > 1


def test_the_loss_is_the_weighted_sum():
    weights = DetectionWeights(1, 2, 3, 4, 5, 6, 7, 8, 9)
    output = answer(1, logit=0.0)
    output.boxes[:, :, 1] += 0.05
    terms = compare(output, [PromptTruth(BOX, mask_of(BOX))], [True], DetectionLoss(weights=weights))
    names = ("score", "l1", "giou", "near", "presence", "mask_bce", "mask_dice", "semantic", "tokens")
    expected = sum(weight * terms[name] for weight, name in enumerate(names, start=1))
    torch.testing.assert_close(terms["loss"], expected)


def test_objects_count_alike_on_whatever_rank_they_are():
    """The mean over two ranks, one with an object and one with three, is the loss of all four in one batch."""
    crowd = BOX + torch.tensor([[0.0], [0.1], [0.2]])
    truth = [PromptTruth(BOX, mask_of(BOX)), PromptTruth(crowd, mask_of(crowd))]
    together = compare(answer(2, masks=2, logit=0.0), truth, [True, True])
    counts = torch.stack([object_counts([one], torch.tensor([True])) for one in truth]).mean(0)
    assert counts.tolist() == [2, 2]
    ranks = [
        DetectionLoss()(answer(1, logit=0.0), nothing_in_tokens(1), [one], torch.tensor([True]), counts)
        for one in truth
    ]
    for name in ("score", "l1", "giou", "near", "mask_bce", "mask_dice"):
        assert sum(terms[name].item() for terms in ranks) / 2 == pytest.approx(together[name].item()), name


def test_all_layers_count_alike():
    output = answer(1)
    output.boxes[0, :, 1, 0] += 0.2  # wrong in the first of two layers
    alone = answer(1, layers=1)
    alone.boxes[0, :, 1, 0] += 0.2
    truth = [PromptTruth(BOX, mask_of(BOX))]
    assert compare(output, truth, [True])["l1"] == pytest.approx(compare(alone, truth, [True])["l1"].item() / 2)


def test_a_query_that_lies_on_an_object_learns_its_box_unmatched():
    boxes = torch.tensor([[0, 0, 0.4, 0.4], [0, 0, 0.4, 0.5], [0.6, 0.6, 0.9, 0.9]], requires_grad=True)
    loss = DetectionLoss().near(boxes, torch.tensor([0]), torch.tensor([[0, 0, 0.4, 0.4]]))
    assert loss.item() == pytest.approx(5 * (0.05 + 0.1) + 2 * (1 - 0.8))  # the second query alone: the third is far
    loss.backward()
    assert boxes.grad.abs().sum(1).bool().tolist() == [False, True, False]


def compare_tokens(tokens, truth):
    return DetectionLoss()(answer(1, masks=0), tokens, truth, torch.tensor([False]))["tokens"]


def test_tokens_learn_the_box_they_lie_in():
    truth = [PromptTruth(BOX)]
    tokens = nothing_in_tokens(1)
    centres = (torch.arange(GRID) + 0.5) / GRID
    for row in range(GRID):
        for column in range(GRID):
            x, y = centres[column], centres[row]
            if 0.25 < x < 0.75 and 0.25 < y < 0.5:
                sides = torch.stack([x - 0.25, y - 0.25, 0.75 - x, 0.5 - y])
                tokens[0, row * GRID + column] = torch.cat([torch.tensor([20.0]), sides.logit()])
    right = compare_tokens(tokens, truth)
    assert right.item() == pytest.approx(0, abs=1e-4)
    assert compare(answer(1, masks=0), truth, [False])["tokens"].item() > 1


def test_boxes_of_tokens_start_small_and_do_not_collapse():
    torch.manual_seed(0)
    head, tokens, truth = TokenBoxHead(8), torch.randn(1, GRID * GRID, 8), [PromptTruth(BOX)]
    with torch.no_grad():
        sides = head(tokens)[..., 1:].sigmoid()
    assert 0.05 < sides.min() < sides.max() < 0.12
    optimizer = torch.optim.Adam([tokens.requires_grad_(), *head.parameters()], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = compare_tokens(head(tokens), truth)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_gradients_reach_every_part():
    torch.manual_seed(0)
    parts = {
        "logits": torch.randn(2, 1, QUERIES), "boxes": torch.rand(2, 1, QUERIES, 4).sort(-1).values,
        "presence_logits": torch.randn(2, 1), "tokens": torch.randn(1, GRID * GRID, 8),
        "masks": torch.randn(1, QUERIES, SIZE, SIZE), "semantic": torch.randn(1, SIZE, SIZE),
    }  # fmt: skip
    for part in parts.values():
        part.requires_grad_()
    output = DetectorOutput(**parts)
    loss = DetectionLoss()(
        output, TokenBoxHead(8)(output.tokens), [PromptTruth(BOX, mask_of(BOX))], torch.tensor([True])
    )
    loss["loss"].backward()
    assert all(part.grad.abs().sum() > 0 for part in parts.values())
