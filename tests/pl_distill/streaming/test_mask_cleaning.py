import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.sam3_video import modeling_sam3_video as stock

from pl_distill.streaming.mask_cleaning import connected_components, fill_holes, mask_iou_matrix, nms_masks


@given(first=st.integers(0, 5), second=st.integers(0, 5), density=st.floats(0, 1), seed=st.integers(0, 1000))
def test_iou_is_that_of_transformers_bit_for_bit(first, second, density, seed):
    numbers = torch.Generator().manual_seed(seed)
    one = torch.rand(first, 9, 7, generator=numbers) < density
    other = torch.rand(second, 9, 7, generator=numbers) < density
    assert torch.equal(mask_iou_matrix(one, other), stock.mask_iou(one, other))


def test_iou_counts_exactly_under_autocast():
    mask = torch.ones(1, 60, 60, dtype=torch.bool)
    other = mask.clone()
    other[0, 0, 0] = False
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mask_iou_matrix(mask, other).item() == torch.tensor(3599 / 3600).item()


def squares(*spans):
    masks = torch.full((len(spans), 1, 10), -1.0)
    for mask, (start, end) in zip(masks, spans, strict=True):
        mask[0, start:end] = 1.0
    return masks


def test_of_two_detections_of_one_animal_the_surer_stays():
    masks = squares((0, 4), (0, 5), (6, 9))
    kept = nms_masks(torch.tensor([0.6, 0.9, 0.5]), masks, prob_threshold=0.3, iou_threshold=0.5)
    assert kept.tolist() == [False, True, True]


def test_a_suppressed_detection_suppresses_no_other():
    masks = squares((0, 4), (2, 6), (4, 8))  # each overlaps its neighbour by a third
    kept = nms_masks(torch.tensor([0.9, 0.8, 0.7]), masks, prob_threshold=0.3, iou_threshold=0.3)
    assert kept.tolist() == [True, False, True]


def test_an_overlap_at_the_threshold_is_allowed():
    kept = nms_masks(torch.tensor([0.9, 0.8]), squares((0, 4), (2, 4)), prob_threshold=0.3, iou_threshold=0.5)
    assert kept.tolist() == [True, True]


def test_detections_below_the_score_neither_stay_nor_suppress():
    kept = nms_masks(torch.tensor([0.2, 0.1]), squares((0, 4), (0, 4)), prob_threshold=0.3, iou_threshold=0.5)
    assert kept.tolist() == [False, False]


def test_diagonal_neighbours_are_one_component():
    mask = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)[None, None]
    labels, areas = connected_components(mask)
    assert areas[0, 0].tolist() == [[2, 0, 0, 1], [0, 2, 0, 0], [0, 0, 0, 0]]
    assert labels[0, 0, 0, 0] == labels[0, 0, 1, 1] != labels[0, 0, 0, 3]


def test_a_small_hole_is_filled_and_a_speck_removed_and_nothing_else_changes():
    mask = torch.full((1, 1, 8, 8), -5.0)
    mask[0, 0, 0:5, 0:5] = 3.0
    mask[0, 0, 2, 2] = -4.0  # a hole
    mask[0, 0, 7, 7] = 2.0  # a speck
    cleaned = fill_holes(mask, max_area=2)
    expected = mask.clone()
    expected[0, 0, 2, 2], expected[0, 0, 7, 7] = 0.1, -0.1
    assert torch.equal(cleaned, expected)
    assert torch.equal(fill_holes(mask, max_area=0), mask)


def test_an_animal_smaller_than_the_limit_keeps_its_mask():
    mask = torch.full((1, 1, 8, 8), -5.0)
    mask[0, 0, 3, 3:5] = 2.0
    assert torch.equal(fill_holes(mask, max_area=10), mask)
