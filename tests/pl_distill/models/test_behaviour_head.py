import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules.behaviour_windows import Window, window_rows
from datamodules.lies import LIE, lies_of
from datamodules.motion import MOTION, REACH, motion_of
from pl_distill.errors import CheckpointError
from pl_distill.models import behaviour_head
from pl_distill.models.behaviour_head import (
    PEN_BEHAVIOUR,
    BehaviourModel,
    BranchedHead,
    FrameHead,
    TemporalHead,
    load_behaviour,
    save_behaviour,
)
from pl_distill.models.behaviour_stream import BehaviourStream

WINDOW = Window(2, 3)
NOBODY = (np.zeros((0, 4), np.float32), np.zeros((0, len(LIE)), np.float32), torch.zeros(0, 5))
CLASSES = ("walk", "standing", "sleep")


def model_of(head: torch.nn.Module, kind: str = "frame", features: int = 5, **arguments: int) -> BehaviourModel:
    built = {"features": features, "classes": 3, **arguments}
    return BehaviourModel(head.eval(), kind, CLASSES, WINDOW, 6.0, "abc", {}, built)


def batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.manual_seed(0)
    present = torch.ones(count, WINDOW.length, dtype=torch.bool)
    return (
        torch.randn(count, WINDOW.length, 5, generator=generator),
        torch.randn(count, WINDOW.length, len(MOTION), generator=generator),
        present,
    )


def test_a_frame_head_looks_at_the_moment_alone():
    features, motion, present = batch()
    head = FrameHead(5, 3, WINDOW).eval()
    before = head(features, motion, present)
    changed = features.clone()
    changed[:, [0, 1, 3, 4, 5]] += 1
    torch.testing.assert_close(head(changed, motion + 1, present), before)
    changed[:, 2] *= -1
    assert not torch.allclose(head(changed, motion, present), before)


def test_a_temporal_head_looks_at_the_window_but_not_at_what_was_not_seen():
    features, motion, present = batch()
    head = TemporalHead(5, 3, WINDOW).eval()
    present[:, 4] = False
    before = head(features, motion, present)
    features[:, 4], motion[:, 4] = 9.0, 9.0
    torch.testing.assert_close(head(features, motion, present), before)
    features[:, 3] *= -1
    assert not torch.allclose(head(features, motion, present), before)


def test_the_baseline_is_blind_to_pictures():
    features, motion, present = batch()
    head = TemporalHead(5, 3, WINDOW, pictures=False).eval()
    torch.testing.assert_close(head(features + 5, motion, present), head(features, motion, present))


def test_a_branched_head_adds_one_that_is_blind_to_pictures_and_one_that_is_not():
    features, motion, present = batch()
    head = BranchedHead(5, 3, WINDOW).eval()
    blind, seeing = head.branches(features, motion, present)
    torch.testing.assert_close(head(features, motion, present), blind + seeing)
    others = head.branches(-features, motion, present)
    torch.testing.assert_close(others[0], blind)
    assert not torch.allclose(others[1], seeing)


@pytest.mark.parametrize(
    ("kind", "head"), [("frame", FrameHead), ("temporal", TemporalHead), ("branched", BranchedHead)]
)
def test_a_head_comes_back_from_disk(kind, head, tmp_path):
    written = model_of(head(5, 3, WINDOW, hidden=16), kind, hidden=16)
    save_behaviour(tmp_path / "head", written)
    read = load_behaviour(tmp_path / "head")
    assert (read.classes, read.window, read.fps, read.embedder, read.kind) == (CLASSES, WINDOW, 6.0, "abc", kind)
    torch.testing.assert_close(read.head(*batch()), written.head(*batch()), atol=2e-2, rtol=2e-2)  # stored in float16


def test_damaged_heads_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_behaviour(tmp_path / "none")
    save_behaviour(tmp_path / "head", model_of(FrameHead(5, 3, WINDOW), features=6))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_behaviour(tmp_path / "head")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("classes", None, "KeyError: 'classes'"),
        ("classes", ["a"], "1 names for 3 classes"),
        ("fps", None, "KeyError: 'fps'"),
        ("fps", "often", "could not convert"),
        ("labels", "none", "ValueError"),
        ("arguments", {"features": 5, "classes": 3, "tails": 2}, "tails"),
        ("arguments", {"features": 5, "classes": 3, "hidden": -1}, "RuntimeError"),
    ],
)
def test_a_description_that_says_too_little_or_nonsense_is_refused(key, value, said, tmp_path):
    save_behaviour(tmp_path / "head", model_of(FrameHead(5, 3, WINDOW)))
    config = tmp_path / "head" / "config.json"
    content = json.loads(config.read_text()) | {key: value}
    config.write_text(json.dumps({name: one for name, one in content.items() if one is not None}))
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        load_behaviour(tmp_path / "head")
    assert said in str(caught.value)


def test_a_description_that_is_no_object_is_refused(tmp_path):
    save_behaviour(tmp_path / "head", model_of(FrameHead(5, 3, WINDOW)))
    (tmp_path / "head" / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_behaviour(tmp_path / "head")


def test_an_older_head_is_replaced_as_a_whole(tmp_path, monkeypatch):
    """Killed between its two files, new weights under the old description would name every behaviour wrong."""
    torch.manual_seed(0)
    first, second = (model_of(FrameHead(5, 3, WINDOW)) for _ in range(2))
    save_behaviour(tmp_path / "head", first)

    def killed(path, content):
        raise KeyboardInterrupt

    monkeypatch.setattr(behaviour_head, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        save_behaviour(tmp_path / "head", replace(second, classes=CLASSES[::-1]))
    read = load_behaviour(tmp_path / "head")
    assert read.classes == CLASSES
    torch.testing.assert_close(read.head(*batch()), first.head(*batch()), atol=2e-2, rtol=2e-2)
    assert [path.name for path in tmp_path.iterdir()] == ["head"]


def test_a_folder_comes_before_a_shipped_head_of_its_name(tmp_path, monkeypatch):
    save_behaviour(tmp_path / PEN_BEHAVIOUR, model_of(FrameHead(5, 3, WINDOW)))
    monkeypatch.chdir(tmp_path)
    assert load_behaviour(PEN_BEHAVIOUR).classes == CLASSES


def test_the_identity_changes_with_whatever_changes_the_answers():
    """The heads of an attention change what the same weights say."""
    torch.manual_seed(0)
    net = TemporalHead(5, 3, WINDOW, hidden=16, heads=2)
    model = model_of(net, "temporal", hidden=16, heads=2)
    other = model_of(TemporalHead(5, 3, WINDOW, hidden=16, heads=4), "temporal", hidden=16, heads=4)
    other.head.load_state_dict(net.state_dict())
    assert not torch.allclose(model.head(*batch()), other.head(*batch()))
    assert model.identity != other.identity
    assert model.identity == model_of(net, "temporal", heads=2, hidden=16).identity


def test_live_names_are_those_of_whole_clips():
    """Two animals, one of them gone for a while: frame by frame gives what all frames at once give, `lag` later."""
    torch.manual_seed(0)
    model = model_of(TemporalHead(5, 3, WINDOW, hidden=32), "temporal")
    frames, rng = 30, np.random.default_rng(0)
    seen = [(n, t) for n in (3, 7) for t in range(frames) if not (n == 7 and 12 <= t < 20)]
    animal, frame = np.array(seen, np.int32).T
    corner = np.cumsum(rng.normal(0, 2, (len(seen), 2)), 0) + 50
    boxes = np.concatenate([corner, corner + rng.uniform(10, 30, (len(seen), 2))], 1).astype(np.float32)
    features = torch.randn(len(seen), 5)
    lies = lies_of(boxes).astype(np.float32)
    motion = motion_of(frame, animal, boxes, lies, fps=6.0, width=200, height=150)
    rows = window_rows(frame, animal, WINDOW, 1)
    present = rows >= 0
    logits = model.head(
        torch.where(torch.from_numpy(present)[..., None], features[torch.from_numpy(rows)], 0.0),
        torch.from_numpy(np.where(present[..., None], motion[rows], 0)),
        torch.from_numpy(present),
    )
    expected = {key: CLASSES[number] for key, number in zip(seen, logits.argmax(1).tolist(), strict=True)}

    stream, found, late = BehaviourStream(model), {}, []
    for tick in range(frames):
        here = np.flatnonzero(frame == tick)
        ids = tuple(int(animal[row]) for row in here)
        for named in stream.push(tick, ids, boxes[here], lies[here], features[here], (150, 200)):
            late.append(tick - named.tick)
            found.update({(one, named.tick): name for one, name in zip(named.ids, named.behaviours, strict=True)})
    assert set(late) == {stream.lag} == {WINDOW.future + REACH}
    for named in stream.flush():
        found.update({(one, named.tick): name for one, name in zip(named.ids, named.behaviours, strict=True)})
    assert found.keys() == expected.keys()
    # Only where rows of one animal are not a tick apart may the movement differ: at the edge of the gap.
    edge = {(7, t) for t in range(20, 20 + REACH + WINDOW.past)} | {
        (7, t) for t in range(12 - REACH - WINDOW.future, 12)
    }
    assert {key: name for key, name in found.items() if key not in edge} == {
        key: name for key, name in expected.items() if key not in edge
    }


@pytest.mark.parametrize(
    ("places", "is_told"),
    [([[10, 10, 50, 30], [140, 100, 180, 120]], False), ([[10, 10, 50, 30], [10, 34, 50, 54]], True)],
    ids=["far apart", "side by side"],
)
def test_a_number_that_goes_over_to_another_animal_takes_no_past_along(places, is_told):
    """Two animals exchange numbers in the middle: what each does is named as if two others began there."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = model_of(TemporalHead(5, 3, WINDOW), "temporal")
    places = np.array(places, np.float32)
    lies = np.zeros((2, len(LIE)), np.float32)
    features = [torch.from_numpy(rng.normal(size=(2, 5)).astype(np.float32)) for _ in range(12)]

    def named(change):
        """What each place does, tick by tick; at tick 6 the numbers of the places become others."""
        stream, found = BehaviourStream(model), {}
        for tick in range(12):
            ids = change if tick >= 6 else (0, 1)
            order = np.argsort(ids)
            rows = torch.from_numpy(order)
            renamed = {0, 1} if is_told and tick == 6 and change == (1, 0) else ()
            told = stream.push(
                tick, tuple(sorted(ids)), places[order], lies[order], features[tick][rows], (150, 200), renamed
            )
            for one in told:
                assert list(one.ids) == sorted(one.ids)
                found[one.tick] = dict(zip(one.ids, one.probabilities, strict=True))
        for one in stream.flush():
            found[one.tick] = dict(zip(one.ids, one.probabilities, strict=True))
        return [
            [float(found[tick][(change if tick >= 6 else (0, 1))[place]]) for place in (0, 1)] for tick in range(12)
        ]

    np.testing.assert_allclose(named((1, 0)), named((2, 3)), rtol=1e-5)
    assert not np.allclose(named((0, 1)), named((2, 3)))


def test_a_camera_of_another_size_moves_nobody():
    """From tick 6 on the same scene comes at twice the size: each animal is named as another one that begins there."""
    torch.manual_seed(0)
    model = model_of(TemporalHead(5, 3, WINDOW), "temporal")
    features = torch.randn(12, 1, 5)
    box, lie = np.array([[60, 40, 120, 80]], np.float32), np.zeros((1, len(LIE)), np.float32)

    def named(after: int) -> list[float]:
        stream, found = BehaviourStream(model), []
        for tick in range(12):
            scale, number = (2, after) if tick >= 6 else (1, 0)
            found += stream.push(tick, (number,), scale * box, lie, features[tick], (150 * scale, 200 * scale))
        return [float(one.probabilities[0]) for one in (*found, *stream.flush())]

    np.testing.assert_allclose(named(0), named(1), rtol=1e-6)


def test_ticks_must_rise():
    stream = BehaviourStream(model_of(TemporalHead(5, 3, WINDOW), "temporal"))
    stream.push(4, (), *NOBODY, (10, 10))
    with pytest.raises(ValueError, match="tick 4 follows 4"):
        stream.push(4, (), *NOBODY, (10, 10))
