from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from datamodules.edinburgh_output import BEHAVIOURS
from datamodules.errors import UserError
from datamodules.pen import PenConfig, load_pen_config, simulate
from datamodules.pen.furniture import HOPPER_RADIUS_M, TROUGH_LENGTH_M, Furniture
from datamodules.pen.herd import make_herd

DAY = PenConfig()


@pytest.fixture(scope="module")
def life():
    """Four pens, 75 s each."""
    return {seed: list(simulate(DAY, seed, 450)) for seed in range(1_000_000, 1_000_004)}


def noses(state, herd):
    return [nose_of(pose, body) for pose, body in zip(state.poses, herd, strict=True)]


def nose_of(pose, body):
    half = body.build.trunk / 2 * body.length_m
    head = body.nose_m - half
    front, look = pose.heading + pose.bend * half / 2, pose.heading + pose.bend * half + pose.head_yaw
    return pose.x + half * np.cos(front) + head * np.cos(look), pose.y + half * np.sin(front) + head * np.sin(look)


def test_the_same_seed_gives_the_same_life():
    assert list(simulate(DAY, 7, 20)) == list(simulate(DAY, 7, 20))


def test_fewer_frames_are_the_beginning_of_more():
    assert list(simulate(DAY, 7, 5)) == list(islice(simulate(DAY, 7, 20), 5))


@pytest.mark.parametrize("other", [{"seed": 8}, {"clip": "2026_01_02/000000"}])
def test_another_seed_or_clip_is_another_life(other):
    arguments = {"seed": 7, "clip": "2026_01_01/000000"} | other
    assert next(simulate(DAY, frames=1, **arguments)) != next(simulate(DAY, 7, 1, "2026_01_01/000000"))


def test_animals_are_the_same_in_every_domain_and_one_more_changes_none():
    assert make_herd(load_pen_config("straw"), 3) == make_herd(DAY, 3) == make_herd(replace(DAY, num_animals=12), 3)[:8]


def test_the_camera_does_not_change_what_happens():
    assert list(simulate(load_pen_config("low-camera"), 3, 5)) == list(simulate(DAY, 3, 5))


def test_an_empty_pen_and_a_full_one_live_too():
    assert [state.poses for state in simulate(replace(DAY, num_animals=0), 1, 2)] == [(), ()]
    assert all(len(state.poses) == 40 for state in simulate(replace(DAY, num_animals=40), 1, 2))


@pytest.mark.parametrize("fps", [1.0, 6.0, 30.0])
def test_time_passes_at_the_rate_of_the_video(fps):
    assert [state.time_s for state in simulate(replace(DAY, fps=fps), 1, 3)] == pytest.approx([0, 1 / fps, 2 / fps])


def test_a_vigour_of_1_changes_nothing_and_one_of_0_leaves_rest():
    names = [body.name for body in make_herd(DAY, 7)]
    sound, same, lame = (
        list(simulate(replace(DAY, fps=1.0), 7, 12, vigour=vigour))
        for vigour in (None, dict.fromkeys(names, 1.0), dict.fromkeys(names, 0.0))
    )
    assert same == sound
    quiet = {"lying", "sleep", "sitting", "standing", "walk"}  # they walk to their beds
    assert not {pose.behaviour for state in sound for pose in state.poses} <= quiet
    assert {pose.behaviour for state in lame for pose in state.poses} <= quiet


@pytest.mark.parametrize("vigour", [{"pig-09": 0.5}, {"pig-01": 1.5}, {"pig-01": float("nan")}])
def test_the_vigour_of_nobody_or_an_impossible_one_is_refused(vigour):
    with pytest.raises(UserError, match="pen, vigour"):
        next(simulate(DAY, 7, 1, vigour=vigour))


def test_animals_stay_between_the_walls(life):
    places = np.array([(pose.x, pose.y) for states in life.values() for state in states for pose in state.poses])
    assert (np.abs(places) < (2.9, 0.95)).all()


def test_nobody_jumps(life):
    steps = [
        np.hypot(a.x - b.x, a.y - b.y)
        for states in life.values()
        for before, after in pairwise(states)
        for a, b in zip(before.poses, after.poses, strict=True)
    ]
    assert max(steps) < 0.45  # metres in a sixth of a second: a run and a push


def test_time_is_spent_as_in_the_recordings(life):
    counts = Counter(pose.behaviour for states in life.values() for state in states for pose in state.poses)
    share = {label: count / counts.total() for label, count in counts.items()}
    assert set(share) <= set(BEHAVIOURS)
    assert {"sleep", "investigating", "standing", "eat", "lying", "walk"} <= set(share)
    assert 0.10 < share["sleep"] < 0.45
    assert 0.12 < share["investigating"] < 0.35
    common = sum(share[label] for label in ("sleep", "investigating", "standing", "eat", "lying", "walk"))
    assert 0.75 < common < 0.99  # the other ten are rare, as there
    assert {"nose-to-nose", "drink", "sitting", "fight"} <= set(share)


def test_a_label_says_what_can_be_seen(life):
    furniture = Furniture.of(DAY)
    checked: Counter[str] = Counter()
    for seed, states in life.items():
        herd = make_herd(DAY, seed)
        for state in states:
            checked.update(pose.behaviour for pose in state.poses)
            for pose, nose in zip(state.poses, noses(state, herd), strict=True):
                posture = int(np.argmax(pose.posture))
                assert {"lying": 1, "sleep": 2, "sitting": 3}.get(pose.behaviour, 0) == posture
                if pose.behaviour == "eat":
                    away = np.abs(np.subtract(nose, furniture.feeder))
                    assert (away < (TROUGH_LENGTH_M / 2 + 0.25, 0.40)).all()
                if pose.behaviour == "drink":
                    assert min(np.hypot(*np.subtract(nose, drinker)) for drinker in furniture.drinkers) < 0.40
                if pose.behaviour == "playwithtoy":
                    assert np.hypot(*np.subtract(nose, furniture.toy)) < 0.75
    assert min(checked[behaviour] for behaviour in ("eat", "drink", "playwithtoy", "sitting")) >= 5, checked


def test_fights_and_greetings_have_two_sides(life):
    mutual, alone = Counter(), Counter()
    for seed, states in life.items():
        herd = make_herd(DAY, seed)
        for state in states[::5]:
            tips = noses(state, herd)
            for label in ("nose-to-nose", "fight"):
                sides = [tip for tip, pose in zip(tips, state.poses, strict=True) if pose.behaviour == label]
                if len(sides) == 1:
                    alone[label] += 1
                    continue
                mutual[label] += len(sides)
                for tip in sides:
                    assert sorted(np.hypot(*np.subtract(tip, other)) for other in sides)[1] < 0.40
    assert mutual["nose-to-nose"] > 0
    assert mutual["fight"] > 0
    assert alone["nose-to-nose"] == 0
    assert alone["fight"] <= 0.05 * mutual["fight"]  # one may let go a moment before the other


def test_the_toy_moves_only_when_somebody_plays():
    seen = {True: [], False: []}
    for seed in range(30):
        for state in simulate(DAY, seed, 60):
            playing = any(pose.behaviour == "playwithtoy" for pose in state.poses)
            seen[playing].append(np.hypot(*state.toy_swing))
        if len(seen[True]) > 40:
            break
    assert np.mean(seen[True]) > 0.01 > 10 * np.median(seen[False])
    assert max(seen[True]) <= 0.25


def test_the_hopper_of_the_other_farm_is_eaten_from():
    config = load_pen_config("farm-b")
    furniture = Furniture.of(config)
    herd, eaten = make_herd(config, 2), 0
    for state in simulate(config, 2, 400):
        for pose, nose in zip(state.poses, noses(state, herd), strict=True):
            if pose.behaviour == "eat":
                eaten += 1
                assert np.hypot(*np.subtract(nose, furniture.feeder)) < HOPPER_RADIUS_M + 0.3
    assert eaten
