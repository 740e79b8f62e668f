import logging
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from pl_distill.errors import ConfigError
from pl_distill.models.prompts import PromptEmbedding
from pl_distill.models.sam3 import load_sam3, read_geometry, substitute
from pl_distill.models.sam3_config import Sam3Geometry
from pl_distill.streaming import PruningPolicy, Retirement, StreamingTracker
from pl_distill.streaming.sam3_stream import Sam3Stream


def same(first, second) -> bool:
    return (
        first.ids == second.ids
        and np.array_equal(first.masks, second.masks)
        and np.array_equal(first.scores, second.scores)
        and np.array_equal(first.boxes_xyxy, second.boxes_xyxy)
    )


def run(tracker, pictures):
    return [tracker.update(picture, index / 10) for index, picture in enumerate(pictures)]


def test_tracks_are_what_they_promise(model, prompt, preprocessing, clip):
    shows_all = PruningPolicy(retirement=None)  # with random weights a mask and its detection have little in common
    for tracks in run(StreamingTracker(model, prompt, preprocessing, shows_all), clip(4)):
        count = len(tracks.ids)
        assert count > 0
        assert list(tracks.ids) == sorted(set(tracks.ids))
        assert tracks.masks.shape == (count, 48, 64)
        assert (tracks.masks.dtype, tracks.scores.dtype, tracks.boxes_xyxy.dtype) == (bool, np.float32, np.float32)
        assert (tracks.scores > 0).all()
        assert (tracks.scores <= 1).all()
        assert tracks.masks.sum(0).max() <= 1
        left, top, right, bottom = tracks.boxes_xyxy.T
        assert (left >= 0).all()
        assert (top >= 0).all()
        assert (right > left).all()
        assert (right <= 64).all()
        assert (bottom > top).all()
        assert (bottom <= 48).all()


def test_nothing_is_kept_for_gradients(model, prompt, preprocessing, clip):
    """Every weight of a loaded model asks for them: without inference mode each frame would keep its activations."""
    assert all(weight.requires_grad for weight in model.parameters())
    seen = []
    for part in (model.detector_model.vision_encoder, model.tracker_model.memory_attention):
        part.register_forward_hook(lambda *_: seen.append(torch.is_inference_mode_enabled()))
    run(StreamingTracker(model, prompt, preprocessing), clip(3))
    assert len(seen) > 3
    assert all(seen)


def test_reset_forgets_everything(model, prompt, preprocessing, clip):
    pictures = list(clip(6))
    tracker = StreamingTracker(model, prompt, preprocessing)
    first = run(tracker, pictures)
    run(tracker, clip(3, seed=5))
    tracker.reset()
    assert all(same(one, other) for one, other in zip(first, run(tracker, pictures), strict=True))


def test_a_view_with_reversed_channels_is_taken_like_its_copy(model, prompt, preprocessing, clip):
    """OpenCV's pictures are BGR, and `frame[..., ::-1]` is RGB without a copy, which torch refuses."""
    bgr = [picture[..., ::-1].copy() for picture in clip(3)]
    views = run(StreamingTracker(model, prompt, preprocessing), [picture[..., ::-1] for picture in bgr])
    copies = run(StreamingTracker(model, prompt, preprocessing), list(clip(3)))
    assert any(tracks.ids for tracks in copies)
    assert all(same(one, other) for one, other in zip(views, copies, strict=True))


def test_after_an_error_in_mid_frame_only_a_reset_goes_on(model, prompt, preprocessing, clip, monkeypatch):
    """New animals would be known to one record and not to another: KeyErrors from then on."""
    pictures = list(clip(4))
    tracker = StreamingTracker(model, prompt, preprocessing)
    first = tracker.update(pictures[0], 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Sam3Stream, "build_outputs", lambda *_, **__: (_ for _ in ()).throw(MemoryError("transient")))
        with pytest.raises(MemoryError, match="transient"):
            tracker.update(pictures[1], 0.1)
    with pytest.raises(RuntimeError, match=r"in the middle of a frame: call reset\(\)"):
        tracker.update(pictures[2], 0.2)
    tracker.reset()
    assert same(tracker.update(pictures[0], 0.0), first)
    with pytest.raises(ValueError, match="expected uint8"):
        tracker.update(pictures[1].astype(np.float32), 0.1)
    tracker.update(pictures[1], 0.1)  # a picture that was refused has torn nothing


def test_the_model_is_left_as_it_was_and_serves_two_trackers_at_once(model, prompt, preprocessing, clip):
    pictures = list(clip(5))
    alone = run(StreamingTracker(model, prompt, preprocessing), pictures)
    one, other = (StreamingTracker(model, prompt, preprocessing) for _ in range(2))
    for index, picture in enumerate(pictures):
        assert same(one.update(picture, index), alone[index])
        assert same(other.update(picture, index), alone[index])
    assert type(model).__name__ == "Sam3VideoModel"


def test_ids_never_come_back(model, prompt, preprocessing, clip):
    strict = Retirement(probation_misses=1, unmatched_frames=1)
    tracker = StreamingTracker(model, prompt, preprocessing, PruningPolicy(retirement=strict))
    threshold = tracker.model.score_threshold_detection
    seen: set[int] = set()
    ended: set[int] = set()
    for index, picture in enumerate(clip(40)):
        # in a while without any detection, every track ends
        tracker.model.score_threshold_detection = 2.0 if 18 <= index < 22 else threshold
        alive_before = set(tracker.session.obj_ids)
        found = set(tracker.update(picture, index / 10).ids)
        alive = set(tracker.session.obj_ids)
        newcomers = (found | alive) - seen
        assert not ended & (found | alive)
        assert all(track > max(seen, default=-1) for track in newcomers)
        seen |= newcomers
        ended |= (alive_before | newcomers) - alive
        if index == 21:
            assert not alive
            before_the_pause = max(seen)
    assert len(ended) > 8
    assert max(seen) > before_the_pause
    assert set(tracker.session.trk_keep_alive) == set(tracker.session.obj_ids)


def test_a_track_that_ends_is_logged_with_its_reason(model, prompt, preprocessing, clip, caplog):
    caplog.set_level(logging.INFO, logger="pl_distill.streaming.tracker")
    strict = Retirement(probation_misses=1)
    run(StreamingTracker(model, prompt, preprocessing, PruningPolicy(retirement=strict)), clip(2))
    assert "frame 1: track 0 ends, " in caplog.text


def test_the_log_counts_frames_as_the_caller_does_blank_ones_too(model, prompt, preprocessing, clip, caplog):
    caplog.set_level(logging.INFO, logger="pl_distill.streaming.tracker")
    strict = Retirement(probation_misses=1)
    tracker = StreamingTracker(model, prompt, preprocessing, PruningPolicy(retirement=strict))
    first, second = clip(2)
    run(tracker, [first, *[np.zeros_like(first)] * 3, second])
    assert "frame 4: track 0 ends, " in caplog.text
    tracker.reset()
    run(tracker, [first, second])
    assert caplog.messages[-1].startswith("frame 1: ")


def test_a_track_that_nothing_confirms_is_hidden_and_comes_back_under_its_id(model, prompt, preprocessing, clip):
    rules = Retirement(probation_misses=0, unmatched_frames=0, hidden_frames=2)
    tracker = StreamingTracker(model, prompt, preprocessing, PruningPolicy(retirement=rules))
    tracker.model.assoc_iou_thresh = 0.01  # with random weights a mask and its detection have little in common
    threshold = tracker.model.score_threshold_detection
    shown, alive = [], []
    for index, picture in enumerate(clip(6)):
        tracker.model.score_threshold_detection = 2.0 if 1 <= index < 4 else threshold
        shown.append(set(tracker.update(picture, index / 10).ids))
        alive.append(set(tracker.session.obj_ids))
    assert shown[0] == shown[1]
    assert shown[2] == shown[3] == set()
    assert shown[5] & shown[0]
    assert all(shown[0] <= tracks for tracks in alive)


def test_fused_boxes_lie_between_mask_and_detection_and_nothing_else_changes(model, prompt, preprocessing, clip):
    plain, fused = (
        StreamingTracker(model, prompt, preprocessing, PruningPolicy(retirement=None, fuse_boxes=fuse))
        for fuse in (False, True)
    )
    pulled = 0
    for index, picture in enumerate(clip(6)):
        before, after = (tracker.update(picture, index / 10) for tracker in (plain, fused))
        assert (before.ids, before.scores.tolist()) == (after.ids, after.scores.tolist())
        assert np.array_equal(before.masks, after.masks)
        height, width = picture.shape[:2]
        size = np.array([width, height, width, height])
        for track, box, mean in zip(before.ids, before.boxes_xyxy, after.boxes_xyxy, strict=True):
            found = fused.model.detected.get(track)
            detection = box if found is None else found.clamp(0, 1).numpy() * size
            np.testing.assert_allclose(mean, (box + detection) / 2, atol=1e-4)
            pulled += found is not None
        assert set(fused.model.detected) <= set(fused.session.obj_ids)
    assert pulled > 6


@pytest.mark.parametrize("one_to_one", [True, False])
def test_the_only_detection_of_two_tracks_on_one_animal_confirms_the_better(model, one_to_one):
    stream = Sam3Stream.of(model, PruningPolicy(one_to_one=one_to_one))
    animal, most_of_it, elsewhere = torch.full((3, 8, 8), -1.0)
    animal[:4, :4], most_of_it[:4, :3], elsewhere[6:, 6:] = 1, 1, 1
    stream.assoc_iou_thresh, stream.trk_assoc_iou_thresh = 0.2, 0.4
    association = stream._associate_det_trk(
        det_masks=animal[None],
        det_scores=torch.tensor([0.9]),
        trk_masks=torch.stack([most_of_it, animal, elsewhere]),
        trk_obj_ids=[4, 6, 9],
        det_prompt_ids=torch.zeros(1),
        trk_prompt_ids=torch.zeros(3),
    )
    _, unmatched, matched, _, _ = association
    assert (unmatched, matched) == (([4, 9], {0: [6]}) if one_to_one else ([9], {0: [4, 6]}))


def test_the_limit_is_kept_and_said_once(model, prompt, preprocessing, clip, caplog):
    policy = PruningPolicy(retirement=None, max_objects=2)
    tracks = run(StreamingTracker(model, prompt, preprocessing, policy), clip(5))
    assert all(len(one.ids) <= 2 for one in tracks)
    assert caplog.text.count("2 animals are tracked, the limit") == 1


def test_the_limit_is_said_again_in_another_video(model, prompt, preprocessing, clip, caplog):
    tracker = StreamingTracker(model, prompt, preprocessing, PruningPolicy(retirement=None, max_objects=2))
    run(tracker, clip(2))
    tracker.reset()
    run(tracker, clip(2))
    assert caplog.text.count("2 animals are tracked, the limit") == 2


def test_a_new_animal_does_not_disturb_the_memory_of_the_others(model, prompt, preprocessing, clip):
    def memory_of_the_first(policy, newcomer):
        tracker = StreamingTracker(model, prompt, preprocessing, policy)
        for index, picture in enumerate(clip(4)):
            tracker.model.max_num_objects = 2 if newcomer and index == 3 else 1
            tracker.update(picture, index)
        assert len(tracker.session.obj_ids) == 1 + newcomer
        newest = tracker.session.output_dict_per_obj[0]["non_cond_frame_outputs"][3]
        return newest["maskmem_features"], newest["object_pointer"]

    shy = PruningPolicy(retirement=None)
    alone, beside = memory_of_the_first(shy, newcomer=False), memory_of_the_first(shy, newcomer=True)
    assert all(torch.equal(one, other) for one, other in zip(alone, beside, strict=True))
    stock = PruningPolicy.as_transformers("exact")
    alone, beside = memory_of_the_first(stock, newcomer=False), memory_of_the_first(stock, newcomer=True)
    assert not torch.equal(alone[0], beside[0])


def test_duplicate_detections_become_one_animal(model, prompt, preprocessing, clip):
    model.det_nms_thresh, picture = 0.05, next(clip(1))
    twice = StreamingTracker(model, prompt, preprocessing, PruningPolicy(suppress_duplicates=False)).update(picture, 0)
    once = StreamingTracker(model, prompt, preprocessing).update(picture, 0)
    assert 0 < len(once.ids) < len(twice.ids)


def test_holes_are_filled_as_the_switch_says(model, prompt, preprocessing, clip):
    pictures, masks = list(clip(2)), []
    whole = (Sam3Geometry.of(model.config).image_size // 4) ** 2  # of a mask before it is enlarged: any hole is smaller
    for area, fills in ((0, True), (whole, False), (whole, True)):
        model.fill_hole_area = area
        policy = PruningPolicy(retirement=None, fill_holes=fills)
        masks.append(run(StreamingTracker(model, prompt, preprocessing, policy), pictures)[1].masks)
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])


def test_a_camera_that_drops_out_and_changes_its_size_is_survived(model, prompt, preprocessing, clip):
    pictures = list(clip(6))
    tracker = StreamingTracker(model, prompt, preprocessing, PruningPolicy(retirement=None))
    before = run(tracker, pictures[:3])
    for second in range(20):
        assert len(tracker.update(np.zeros_like(pictures[0]), 10 + second)) == 0
    after = [tracker.update(np.repeat(picture, 2, axis=1), 60 + index) for index, picture in enumerate(pictures[3:])]
    assert set(after[0].ids) & set(before[-1].ids)
    assert after[0].masks.shape[1:] == (48, 128)
    uninterrupted = StreamingTracker(model, prompt, preprocessing, PruningPolicy(retirement=None))
    assert run(uninterrupted, pictures[:4])[3].ids == after[0].ids


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize(("resumed_s", "ends"), [(60.2, False), (61.0, True)])
def test_all_tracks_end_with_a_long_pause_and_no_id_comes_back(
    model, prompt, preprocessing, clip, caplog, blank, resumed_s, ends
):
    caplog.set_level(logging.INFO, logger="pl_distill.streaming.tracker")
    never = Retirement(probation_frames=0, unmatched_frames=0, hidden_frames=0, empty_frames=0, pause_s=60)
    tracker = StreamingTracker(model, prompt, preprocessing, PruningPolicy(retirement=never))
    pictures = list(clip(8))
    before = run(tracker, pictures[:4])  # the last at 0.3 s
    if blank:
        assert len(tracker.update(np.zeros_like(pictures[0]), 30)) == 0
    after = [tracker.update(picture, resumed_s + index / 10) for index, picture in enumerate(pictures[4:])]
    assert before[-1].ids
    assert after[0].ids
    assert set(before[-1].ids).isdisjoint(after[0].ids) == ends
    assert ("track 0 ends, a pause of 61 s" in caplog.text) == ends
    if ends:
        assert min(tracker.session.obj_ids) > max(before[-1].ids)
    assert "with every frame" not in caplog.text


def test_a_time_lapse_in_which_no_identity_goes_on_is_warned_of_once(model, prompt, preprocessing, clip, caplog):
    tracker = StreamingTracker(model, prompt, preprocessing, PruningPolicy(retirement=Retirement()))
    seen = [tracker.update(picture, 120.0 * number).ids for number, picture in enumerate(clip(5))]
    assert all(set(before).isdisjoint(after) for before, after in pairwise(seen))
    (warning,) = (text for text in caplog.messages if "with every frame" in text)
    assert "frame 2: all tracks end with every frame" in warning
    assert "retirement.pause_s (60 s)" in warning


def test_a_substituted_student_streams(model, teacher, prompt, preprocessing, clip):
    channels, grid, _ = read_geometry(teacher).map_shape

    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Conv2d(3, channels, kernel_size=14, stride=14)

        def forward(self, images):
            return self.project(images)

    torch.manual_seed(0)
    substituted = substitute(model, Student())
    assert grid == 8
    students = run(StreamingTracker(substituted, prompt, preprocessing), clip(3))
    teachers = run(StreamingTracker(model, prompt, preprocessing), clip(3))
    assert len(students[-1].ids) > 0
    assert not same(students[-1], teachers[-1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_streams_on_a_gpu(teacher, prompt, preprocessing, clip):
    tracks = run(StreamingTracker(load_sam3(teacher, device="cuda"), prompt, preprocessing), clip(3))
    assert len(tracks[-1].ids) > 0


@pytest.mark.parametrize("frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_a_frame_that_is_no_rgb_picture_is_refused(model, prompt, preprocessing, frame):
    with pytest.raises(ValueError, match=r"expected uint8 of shape \(H, W, 3\)"):
        StreamingTracker(model, prompt, preprocessing).update(frame, 0)


def test_mixed_dtypes_are_refused(model, prompt, preprocessing):
    model.tracker_neck.half()
    with pytest.raises(ConfigError, match="has weights in float16, float32, expected one dtype"):
        StreamingTracker(model, prompt, preprocessing)


def test_a_prompt_of_another_model_is_refused(model, prompt, preprocessing):
    other = PromptEmbedding("pig", torch.zeros(1, 32, 256), prompt.attention_mask)
    with pytest.raises(ConfigError, match="is of width 256, expected the model's 128"):
        StreamingTracker(model, other, preprocessing)


def test_a_closed_tracker_is_of_no_use(model, prompt, preprocessing, clip):
    with StreamingTracker(model, prompt, preprocessing) as tracker:
        run(tracker, clip(1))
    assert tracker.model is None
    assert tracker.session.tensor_bytes() < 50_000  # the prompt
    with pytest.raises(RuntimeError, match="closed"):
        tracker.update(next(clip(1)), 0)
