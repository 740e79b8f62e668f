from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pl_distill.errors import ConfigError
from pl_distill.models.sam3 import load_sam3_config
from pl_distill.streaming import PruningPolicy, StreamingTracker
from pl_distill.streaming.session import FrameStore, MemoryWindow, StreamingSession


@pytest.mark.parametrize("name", ["real", "tiny"])
def test_the_windows_follow_from_the_configuration(name):
    assert MemoryWindow.of(load_sam3_config(name)) == MemoryWindow(pointers=15, memories=6, conditioning=4)


def test_a_model_with_a_shorter_memory_has_shorter_windows():
    config = load_sam3_config("tiny")
    config.tracker_config.num_maskmem = 4
    config.tracker_config.max_object_pointers_in_encoder = 1
    config.tracker_config.max_cond_frame_num = -1
    assert MemoryWindow.of(config) == MemoryWindow(pointers=0, memories=3, conditioning=None)


def test_what_reads_all_conditioning_frames_is_bounded_by_a_window_alone(prompt):
    config = load_sam3_config("tiny")
    config.tracker_config.max_cond_frame_num = -1
    options = {"device": torch.device("cpu"), "dtype": torch.float32}
    with pytest.raises(ConfigError, match=r"policy\.mode: is bounded, but the model reads all"):
        StreamingSession(config, prompt, PruningPolicy("bounded"), **options)
    for policy in (PruningPolicy("bounded", window_frames=3), PruningPolicy("exact")):
        StreamingSession(config, prompt, policy, **options)
    with pytest.raises(ConfigError, match="max_cond_frame_num: is -1"):
        MemoryWindow.of(config).full_after(4)
    assert MemoryWindow.of(config).full_after(0) == 16


@given(least=st.integers(0, 20), frames=st.integers(0, 40), kept=st.integers(0, 5))
def test_the_length_of_a_frame_store_is_that_of_the_video_whatever_was_dropped(least, frames, kept):
    store = FrameStore(least)
    for index in range(frames):
        store[index] = torch.zeros(1)
        store.pop(index - kept, None)
    assert len(store) == max(least, frames)
    assert len(list(store)) == min(frames, kept)


def session_with(prompt, mode, *, tracked=(), conditioning=()):
    session = StreamingSession(
        load_sam3_config("tiny"),
        prompt,
        mode if isinstance(mode, PruningPolicy) else PruningPolicy(mode),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    outputs = session.output_dict_per_obj[session.obj_id_to_idx(7)]
    for index in tracked:
        outputs["non_cond_frame_outputs"][index] = entry()
    for index in conditioning:
        outputs["cond_frame_outputs"][index] = entry()
    return session, outputs["non_cond_frame_outputs"], outputs["cond_frame_outputs"]


def entry():
    batch = torch.ones(64, 5, 64, dtype=torch.bfloat16)  # five animals, of whom this is one
    names = ("pred_masks", "high_res_masks", "object_score_logits")
    return {
        **{name: torch.ones(1, 1, 8, 8) for name in names},
        "object_pointer": torch.ones(1, 128),
        "maskmem_features": batch[:, 2:3],
        "maskmem_pos_enc": torch.ones(64, 5, 64)[:, 2:3],
    }


def with_memory(outputs):
    return {index for index, one in outputs.items() if "maskmem_features" in one}


def test_fifteen_pointers_and_six_memories_stay(prompt):
    session, tracked, _ = session_with(prompt, "exact", tracked=range(40), conditioning=[0])
    session.prune(39)
    assert set(tracked) == set(range(25, 40))
    assert with_memory(tracked) == set(range(34, 40))
    assert {key for one in tracked.values() for key in one} == {"object_pointer", "maskmem_features", "maskmem_pos_enc"}


def test_every_conditioning_pointer_stays_but_only_the_memories_that_are_read(prompt):
    session, _, conditioning = session_with(prompt, "exact", conditioning=[0, 3, 9, 15, 21, 34, 35, 36, 37, 38])
    session.prune(39)
    assert set(conditioning) == {0, 3, 9, 15, 21, 34, 35, 36, 37, 38}
    assert with_memory(conditioning) == {34, 35, 36, 37, 38}  # the newest four, and 34 among the last six frames


def test_bounded_drops_old_conditioning_frames_whole(prompt):
    session, _, conditioning = session_with(prompt, "bounded", conditioning=[0, 3, 9, 15, 21])
    session.prune(39)
    assert set(conditioning) == {3, 9, 15, 21}


@pytest.mark.parametrize("mode", ["exact", "bounded"])
@pytest.mark.parametrize("window", [1, 2, 6])
def test_a_shorter_window_holds_for_an_animal_that_is_conditioned_in_every_frame(prompt, mode, window):
    policy = PruningPolicy(mode, window_frames=window)
    session, _, conditioning = session_with(prompt, policy, conditioning=range(40))
    session.prune(39)
    assert set(conditioning) == with_memory(conditioning) == set(range(40 - window, 40))


def test_a_shorter_window_leaves_an_animal_that_is_never_found_again_its_newest_conditioning_frame(prompt):
    session, _, conditioning = session_with(prompt, PruningPolicy(window_frames=1), conditioning=[0, 3])
    session.prune(39)
    assert set(conditioning) == with_memory(conditioning) == {3}


def test_a_kept_memory_does_not_keep_the_memories_of_the_other_animals(prompt):
    session, _, conditioning = session_with(prompt, "exact", conditioning=[0, 1])
    session.prune(20)
    for one in conditioning.values():
        assert one["maskmem_features"].untyped_storage().nbytes() == 64 * 64 * 2
    assert conditioning[0]["maskmem_pos_enc"] is conditioning[1]["maskmem_pos_enc"]


def test_without_pruning_everything_stays(prompt):
    session, tracked, conditioning = session_with(prompt, "none", tracked=range(40), conditioning=[0])
    session.prune(39)
    assert len(tracked) == 40
    assert len(tracked[0]) == len(conditioning[0]) == 6


def memory_over_time(model, prompt, preprocessing, pictures, mode):
    tracker = StreamingTracker(model, prompt, preprocessing, PruningPolicy.as_transformers(mode))
    tracker.model.max_num_objects = 2
    tensors, entries = [], []
    for index, picture in enumerate(pictures):
        tracker.update(picture, index / 10)
        tensors.append(tracker.session.tensor_bytes())
        entries.append(tracker.session.python_entries())
    return tensors, entries


def test_memory_is_flat_once_the_windows_are_full_and_grows_without_pruning(model, prompt, preprocessing, clip):
    pictures = list(clip(30))
    tensors, entries = memory_over_time(model, prompt, preprocessing, pictures, "exact")
    assert len(set(tensors[16:])) == 1
    assert len(set(entries[16:])) == 1
    growing, _ = memory_over_time(model, prompt, preprocessing, pictures, "none")
    steps = {later - earlier for earlier, later in pairwise(growing[16:])}
    assert min(steps) > 100_000 > tensors[-1] / 2
    assert growing[-1] > 20 * tensors[-1]


def test_bounded_memory_has_a_ceiling_also_where_any_frame_may_condition(model, prompt, preprocessing, clip):
    model.recondition_every_nth_frame = 1
    model.high_conf_thresh, model.high_iou_thresh, model.assoc_iou_thresh = 0.1, 0.0, 0.05  # any detection may do it
    pictures = list(clip(60))
    bounded, _ = memory_over_time(model, prompt, preprocessing, pictures, "bounded")
    # not the same in every frame: what conditioned among the last six frames is kept once and not twice
    memory, pointer, animals = 64 * 64 * 2, 128 * 4, 2
    assert max(bounded) <= bounded[0] + animals * ((6 + 4) * memory + (15 + 4) * pointer)
    exact, _ = memory_over_time(model, prompt, preprocessing, pictures, "exact")
    # the pointers of frames that conditioned and are no longer attended to
    assert exact[-1] - bounded[-1] > exact[30] - bounded[30] > 0


def test_a_shorter_window_keeps_fewer_frames_whole(prompt):
    policy = PruningPolicy("bounded", window_frames=3)
    session, tracked, conditioning = session_with(prompt, policy, tracked=range(40), conditioning=[0])
    session.prune(39)
    assert set(tracked) == {37, 38, 39}
    assert with_memory(tracked) == {37, 38, 39}
    assert set(conditioning) == {0}


def test_a_window_as_long_as_the_models_changes_nothing(prompt):
    session, tracked, _ = session_with(prompt, PruningPolicy("exact", window_frames=15), tracked=range(40))
    session.prune(39)
    assert set(tracked) == set(range(25, 40))
    assert with_memory(tracked) == set(range(34, 40))


@pytest.mark.parametrize(("mode", "frames"), [("exact", 0), ("none", 3)])
def test_a_window_that_makes_no_sense_is_refused(mode, frames):
    with pytest.raises(ConfigError, match="window_frames"):
        PruningPolicy(mode, window_frames=frames)
