"""Pruned, unpruned and untouched transformers give the same bits."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Sam3VideoProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from datamodules.pen import load_pen_config, pen_frames
from pl_distill.assets import shipped_models
from pl_distill.models.prompts import PromptEmbedding, load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3
from pl_distill.streaming import PruningPolicy, Retirement, StreamingTracker
from pl_distill.streaming.session import MemoryWindow

ENTER = {0: 2, 9: 3, 26: 4}  # frame -> animals that may live from then on


def admission(frame: int, recondition: int) -> dict[str, float]:
    """What lets animals in at certain frames only, and lets random detections recondition them."""
    return {
        "recondition_every_nth_frame": recondition,
        "high_conf_thresh": 0.1,
        "high_iou_thresh": 0.0,
        "assoc_iou_thresh": 0.05,
        "max_num_objects": ENTER[max(entered for entered in ENTER if entered <= frame)],
        "new_det_thresh": 0.05 if frame in ENTER else 2.0,
    }


def admit(model, frame: int, recondition: int) -> None:
    for name, value in admission(frame, recondition).items():
        setattr(model, name, value)


TRAINED_ENTER = {0: 3, 20: 5, 60: 7, 120: 9}  # the same for a detector that finds what is there


def trained_admission(frame: int, recondition: int) -> dict[str, float]:
    """What lets animals in late; the trained model's own thresholds but for looser ones of reconditioning."""
    return {
        "recondition_every_nth_frame": recondition,
        "high_conf_thresh": 0.4,
        "high_iou_thresh": 0.5,
        "max_num_objects": TRAINED_ENTER[max(entered for entered in TRAINED_ENTER if entered <= frame)],
    }


def stream(model, prompt, preprocessing, pictures, policy, recondition=0, window=None, admission=admission):
    tracker = StreamingTracker(model, prompt, preprocessing, policy)
    if window is not None:
        tracker.session.window = window
    results = []
    for index, picture in enumerate(pictures):
        for name, value in admission(index, recondition).items():
            setattr(tracker.model, name, value)
        results.append(tracker.update(picture, index / 10))
    conditioning = [len(each["cond_frame_outputs"]) for each in tracker.session.output_dict_per_obj.values()]
    return results, conditioning


def first_difference(first, second) -> int | None:
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        same = one.ids == other.ids
        same = same and np.array_equal(one.scores, other.scores) and np.array_equal(one.masks, other.masks)
        if not (same and np.array_equal(one.boxes_xyxy, other.boxes_xyxy)):
            return index
    return None


@pytest.mark.parametrize(
    ("recondition", "frames"),
    [
        (0, 60),
        (16, 60),
        (4, 30),
        (1, 30),
        *(pytest.param(recondition, 240, marks=pytest.mark.slow) for recondition in (0, 16, 4, 1)),
    ],
)
def test_pruning_changes_not_one_bit(model, prompt, preprocessing, clip, recondition, frames):
    pictures = list(clip(frames))
    policy = PruningPolicy.as_transformers
    unpruned, conditioning = stream(model, prompt, preprocessing, pictures, policy("none"), recondition)
    pruned, _ = stream(model, prompt, preprocessing, pictures, policy("exact"), recondition)
    assert first_difference(unpruned, pruned) is None
    assert {track for tracks in unpruned for track in tracks.ids} == {0, 1, 2, 3}
    assert max(conditioning) > {0: 0, 16: 2, 4: 4, 1: 7}[recondition]  # the claim is not about a path that never ran


def test_pruning_changes_nothing_with_our_corrections_and_retirement_either(model, prompt, preprocessing, clip):
    model.det_nms_thresh, model.fill_hole_area = 0.5, 16
    pictures = list(clip(30, seed=1))
    patient = Retirement(probation_misses=0, unmatched_frames=20, hidden_frames=0)  # random weights confirm little
    unpruned, _ = stream(model, prompt, preprocessing, pictures, PruningPolicy("none", patient), 4)
    pruned, _ = stream(model, prompt, preprocessing, pictures, PruningPolicy("exact", patient), 4)
    assert first_difference(unpruned, pruned) is None
    shown = Counter(track for tracks in pruned for track in tracks.ids)
    assert max(shown.values()) > 15  # frames: longer than any memory or pointer is kept
    assert len(shown) > len(pruned[-1])  # and one has ended


def test_pruning_changes_nothing_in_bfloat16(teacher, prompt, preprocessing, clip):
    model, pictures = load_sam3(teacher, dtype=torch.bfloat16), list(clip(20))
    unpruned, _ = stream(model, prompt, preprocessing, pictures, PruningPolicy("none", retirement=None), 4)
    pruned, _ = stream(model, prompt, preprocessing, pictures, PruningPolicy("exact", retirement=None), 4)
    assert first_difference(unpruned, pruned) is None
    assert len(pruned[-1]) > 0


def test_the_windows_are_the_smallest(model, prompt, preprocessing, clip):
    pictures, policy = list(clip(20)), PruningPolicy.as_transformers("exact")
    whole, _ = stream(model, prompt, preprocessing, pictures, policy)
    fewer, _ = stream(model, prompt, preprocessing, pictures, policy, window=MemoryWindow(14, 6, 4))
    assert first_difference(whole, fewer) == 16
    with pytest.raises(KeyError, match="maskmem_features"):
        stream(model, prompt, preprocessing, pictures, policy, window=MemoryWindow(15, 5, 4))


def test_bounded_is_exact_until_an_animal_has_more_conditioning_frames_than_the_model_attends_to(
    model, prompt, preprocessing, clip
):
    pictures = list(clip(30))
    unpruned, conditioning = stream(model, prompt, preprocessing, pictures, PruningPolicy.as_transformers("none"), 16)
    bounded, _ = stream(model, prompt, preprocessing, pictures, PruningPolicy.as_transformers("bounded"), 16)
    assert 1 < max(conditioning) <= 4
    assert first_difference(unpruned, bounded) is None
    policy = PruningPolicy.as_transformers("bounded")
    _, conditioning = stream(model, prompt, preprocessing, pictures[:20], policy, 1)
    assert max(conditioning) <= 7  # the newest 4 and those among the last 6 frames


def postprocessed(processor, session, output, picture):
    result = processor.postprocess_outputs(session, output, original_sizes=[list(picture.shape[:2])])
    tracker_scores = [output.obj_id_to_tracker_score.get(int(track), 0.0) for track in result["object_ids"]]
    return tuple(result["object_ids"].tolist()), result["masks"], result["boxes"], tracker_scores


def same_as_stock(tracks, stock) -> bool:
    ids, masks, boxes, scores = stock
    edges = boxes.numpy() + np.array([0, 0, 1, 1]) if len(ids) else np.zeros((0, 4))
    return (
        tracks.ids == ids
        and torch.equal(torch.from_numpy(tracks.masks), masks)
        and np.array_equal(tracks.boxes_xyxy, edges.astype(np.float32))
        and np.array_equal(tracks.scores, np.array(scores, np.float32))
    )


def stock_session(processor, prompt: PromptEmbedding, video=None):
    session = processor.init_video_session(video=video)
    number = session.add_prompt(prompt.word)
    session.prompt_embeddings[number] = BaseModelOutputWithPooling(pooler_output=prompt.embedding)
    session.prompt_attention_masks[number] = prompt.attention_mask
    return session


@pytest.fixture
def stock_process(teacher, tmp_path):
    """Run untouched transformers over pictures in a process of its own; frame -> ids, masks, boxes, scores."""

    def run(pictures, recondition, folder=teacher, admission=admission):
        np.save(tmp_path / "frames.npy", np.stack(pictures))
        schedule = [admission(index, recondition) for index in range(len(pictures))]
        (tmp_path / "schedule.json").write_text(json.dumps(schedule))
        paths = [
            str(path) for path in (folder, *(tmp_path / name for name in ("frames.npy", "schedule.json", "out.npz")))
        ]
        # -I: no path but that of installed packages, nothing of the environment
        subprocess.run([sys.executable, "-I", str(Path(__file__).with_name("stock_run.py")), *paths], check=True)
        found = np.load(tmp_path / "out.npz")
        assert found["ours"].tolist() == []
        frames = [
            tuple(found[f"{index}.{name}"] for name in ("ids", "masks", "boxes", "scores"))
            for index in range(len(pictures))
        ]
        return frames, max(found["conditioning"].tolist())

    return run


@pytest.mark.parametrize(
    ("recondition", "frames"),
    [
        (16, 60),
        *(pytest.param(recondition, 240, marks=pytest.mark.slow) for recondition in (0, 16, 4, 1)),
    ],
)
def test_with_our_switches_off_it_is_untouched_transformers_in_another_process(
    model, prompt, preprocessing, clip, stock_process, recondition, frames
):
    pictures = list(clip(frames))
    ours, _ = stream(model, prompt, preprocessing, pictures, PruningPolicy.as_transformers("exact"), recondition)
    stock, conditioning = stock_process(pictures, recondition)
    assert_same_as_stock(ours, stock)
    assert {track for tracks in ours for track in tracks.ids} == {0, 1, 2, 3}
    assert conditioning > {0: 0, 16: 2, 4: 4, 1: 7}[recondition]  # the claim is not about a path that never ran


def assert_same_as_stock(ours, stock) -> None:
    for index, (tracks, (ids, masks, boxes, scores)) in enumerate(zip(ours, stock, strict=True)):
        assert tracks.ids == tuple(ids.tolist()), f"frame {index}"
        assert tracks.masks.tobytes() == masks.tobytes(), f"frame {index}"
        assert tracks.scores.tobytes() == scores.tobytes(), f"frame {index}"
        edges = boxes.reshape(-1, 4) + np.array([0, 0, 1, 1], np.float32)  # theirs end at the last pixel's number
        assert np.array_equal(tracks.boxes_xyxy, edges), f"frame {index}"


@pytest.mark.slow
@pytest.mark.parametrize("recondition", [0, 16, 4, 1])
def test_with_trained_weights_it_is_untouched_transformers_too(stock_process, recondition):
    check_trained(stock_process, recondition, frames=240)


def check_trained(stock_process, recondition, frames) -> None:
    """Stream an unseen drawn pen through the shipped teacher, pruned, and through transformers alone."""
    folder = shipped_models()["pen_teacher"]
    model, prompt, preprocessing = load_sam3(folder), load_prompts(folder)["pig"], load_preprocessing(folder)
    pictures = [frame.image for frame in pen_frames(load_pen_config("day"), seed=1_000_001, frames=frames)]
    policy = PruningPolicy.as_transformers("exact")
    ours, _ = stream(model, prompt, preprocessing, pictures, policy, recondition, admission=trained_admission)
    stock, conditioning = stock_process(pictures, recondition, folder, trained_admission)
    assert_same_as_stock(ours, stock)
    first, last = ({track for tracks in part for track in tracks.ids} for part in (ours[:20], ours))
    assert len(first) == 3
    assert len(last) == TRAINED_ENTER[max(frame for frame in TRAINED_ENTER if frame < frames)]
    assert conditioning > {0: 0, 16: 1, 4: 4, 1: 7}[recondition]


def test_with_our_switches_off_it_is_transformers_own_streaming(teacher, model, prompt, preprocessing, clip):
    pictures, recondition = list(clip(30)), 4
    ours, _ = stream(model, prompt, preprocessing, pictures, PruningPolicy.as_transformers("exact"), recondition)
    processor, stock = Sam3VideoProcessor.from_pretrained(teacher), load_sam3(teacher)
    session = stock_session(processor, prompt)
    for index, picture in enumerate(pictures):
        admit(stock, index, recondition)
        pixels = processor(images=picture, return_tensors="pt").pixel_values[0]
        output = stock(inference_session=session, frame=pixels, frame_idx=index)
        assert same_as_stock(ours[index], postprocessed(processor, session, output, picture)), f"frame {index}"


def test_with_the_full_window_it_is_transformers_run_on_the_whole_video(teacher, model, prompt, preprocessing, clip):
    pictures = list(clip(24))
    as_streamed, _ = stream(model, prompt, preprocessing, pictures, PruningPolicy.as_transformers("exact"))
    policy = PruningPolicy(
        "exact",
        retirement=None,
        suppress_duplicates=False,
        fill_holes=False,
        one_to_one=False,
        protect_memories=False,
    )
    ours, _ = stream(model, prompt, preprocessing, pictures, policy)
    processor, stock = Sam3VideoProcessor.from_pretrained(teacher), load_sam3(teacher)
    session = stock_session(processor, prompt)
    for index, picture in enumerate(pictures):
        session.add_new_frame(preprocessing(picture), index)
    stock.hotstart_delay = 0
    for index, picture in enumerate(pictures):
        admit(stock, index, 0)
        output = stock(inference_session=session, frame_idx=index)
        assert same_as_stock(ours[index], postprocessed(processor, session, output, picture)), f"frame {index}"
    assert first_difference(ours, as_streamed) is not None  # transformers' own streaming does not give its own result
