import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoSegmentationOutput

from pl_distill.streaming.postprocess import box_around, to_tracks, with_mean_boxes, without_overlap


def output(masks, scores, suppressed=()):
    return Sam3VideoSegmentationOutput(
        object_ids=list(masks),
        obj_id_to_mask=masks,
        obj_id_to_score=dict.fromkeys(masks, 0.5),
        obj_id_to_tracker_score=scores,
        suppressed_obj_ids=set(suppressed),
    )


def logits(rows, columns):
    mask = torch.full((1, 4, 4), -1.0)
    mask[0, rows, columns] = 1.0
    return mask


def test_masks_and_boxes_are_in_pixels_of_the_frame():
    tracks = to_tracks(output({3: logits(slice(0, 2), slice(1, 4))}, {3: 0.75}), height=4, width=4)
    assert tracks.ids == (3,)
    assert tracks.boxes_xyxy.tolist() == [[1, 0, 4, 2]]  # edges of pixels, as in annotations
    assert tracks.scores.tolist() == [0.75]
    assert tracks.masks[0].astype(int).tolist() == [[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_detection_pulls_the_box_of_its_track_half_the_way_and_never_out_of_the_frame():
    masks = {3: logits(slice(0, 2), slice(1, 4)), 5: logits(slice(2, 4), slice(0, 1))}
    detected = {3: torch.tensor([0.0, 0.25, 1.2, 1.0]), 8: torch.zeros(4)}  # 8 has no mask
    tracks = with_mean_boxes(to_tracks(output(masks, {3: 0.75, 5: 0.5}), height=4, width=4), detected)
    assert tracks.boxes_xyxy.tolist() == [[0.5, 0.5, 4, 3], [0, 2, 1, 4]]
    assert tracks.masks.sum(axis=(1, 2)).tolist() == [6, 2]


def test_a_frame_of_another_aspect_gets_masks_of_its_size():
    tracks = to_tracks(output({0: torch.ones(1, 4, 4)}, {0: 1.0}), height=30, width=50)
    assert tracks.masks.shape == (1, 30, 50)
    assert tracks.boxes_xyxy.tolist() == [[0, 0, 50, 30]]


def test_animals_without_a_pixel_or_suppressed_are_left_out_and_ids_rise():
    whole = torch.ones(1, 4, 4)
    masks = {5: whole, 2: whole, 9: -whole, 4: whole}
    assert to_tracks(output(masks, {5: 0.9, 2: 0.8}, suppressed=[4]), 4, 4).ids == (2, 5)


def test_a_frame_without_animals_has_empty_arrays_of_the_right_shapes():
    tracks = to_tracks(output({}, {}), height=6, width=8)
    assert len(tracks) == 0
    assert (tracks.boxes_xyxy.shape, tracks.scores.shape, tracks.masks.shape) == ((0, 4), (0,), (0, 6, 8))
    assert (tracks.boxes_xyxy.dtype, tracks.scores.dtype, tracks.masks.dtype) == (np.float32, np.float32, bool)


def test_a_shared_pixel_belongs_to_the_surer_animal_and_to_the_first_of_equals():
    left, right = torch.tensor([[True, True, False]]), torch.tensor([[False, True, True]])
    assert without_overlap([left, right], [0.2, 0.9])[0].tolist() == [[True, False, False]]
    assert without_overlap([left, right], [0.5, 0.5])[1].tolist() == [[False, False, True]]


@given(count=st.integers(1, 6), seed=st.integers(0, 1000))
def test_separated_masks_cover_the_same_pixels_once(count, seed):
    numbers = torch.Generator().manual_seed(seed)
    masks = list(torch.rand(count, 5, 6, generator=numbers) < 0.5)
    separated = torch.stack(without_overlap(masks, torch.rand(count, generator=numbers).tolist()))
    assert int(separated.sum(0).max()) <= 1
    assert torch.equal(separated.any(0), torch.stack(masks).any(0))


def test_a_mask_without_a_pixel_has_no_box():
    assert box_around(torch.zeros(3, 3, dtype=torch.bool)) is None
