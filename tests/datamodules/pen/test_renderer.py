from dataclasses import replace

import numpy as np
import pytest

from datamodules.masks import decode_masks
from datamodules.pen import PenConfig, PenRenderer, Pose, SceneState, load_pen_config, pen_frames
from datamodules.pen.frame import box_of

STANDING, LYING = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)


def pose(x, y, *, heading=0.0, depth=0.4, posture=STANDING, behaviour="standing"):
    return Pose(x, y, heading, 0.0, 0.0, 0.0, posture, 1, 0.0, 0.0, 0.0, 0.0, depth, behaviour)


def moment(*poses):
    return SceneState(0, 0.0, poses, (0.0, 0.0))


def coat(frame):
    return frame.image[frame.masks.any(0)].mean()


def renderer_of(count, **changes):
    return PenRenderer(replace(PenConfig(), num_animals=count, **changes), 1)


def test_the_same_seed_gives_the_same_pictures(small):
    first, second = (list(pen_frames(small, seed=5, frames=3)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert (a.image == b.image).all()
        assert (a.instance_map == b.instance_map).all()
        assert a.names == b.names


@pytest.mark.parametrize("other", [{"seed": 6}, {"day": "2026_01_02"}, {"clip": "2026_01_01/000001"}])
def test_another_seed_day_or_clip_gives_other_pictures(small, other):
    first, second = (next(pen_frames(small, frames=1, **{"seed": 5, **change})) for change in ({}, other))
    assert (first.image != second.image).mean() > 0.3


def test_pictures_skip_moments_but_not_their_order(small):
    every = [frame.image for frame in pen_frames(small, seed=5, frames=5)]
    third = list(pen_frames(small, seed=5, frames=2, every=4))
    assert [frame.index for frame in third] == [0, 4]
    assert (third[1].image == every[4]).all()
    assert not list(pen_frames(small, seed=5, frames=0))


def test_masks_are_disjoint_and_boxes_are_tight(small):
    for frame in pen_frames(replace(small, num_animals=14), seed=5, frames=4, every=6):
        masks = np.concatenate((frame.masks, np.stack(list(frame.furniture_masks.values()))))
        assert masks.sum(0).max() == 1
        assert len(frame.names) == len(frame.codes) == len(frame.behaviours) == len(frame.boxes_xyxy)
        for mask, box, visible in zip(frame.masks, frame.boxes_xyxy, frame.visible, strict=True):
            if visible:
                rows, columns = np.nonzero(mask)
                assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_the_annotation_is_what_a_reader_would_give(small):
    frame = next(pen_frames(small, seed=5, frames=1))
    animals = frame.annotation(identities={name: name.upper() for name in frame.names})
    assert animals.identities == tuple(name.upper() for name in frame.names)
    assert animals.masks is not None
    assert (decode_masks(animals.masks) == frame.masks).all()
    assert frame.annotation(masks=False).masks is None


def test_the_mask_is_where_the_animal_is_painted():
    renderer = renderer_of(1, noise=0.0, straw_per_m2=0.0)
    frame = renderer.render(moment(pose(1.0, 0.1)))
    changed = np.abs(frame.image.astype(int) - renderer.background).sum(2) > 30
    assert changed[frame.masks[0]].mean() > 0.90
    rows, columns = np.nonzero(frame.masks[0])
    assert (columns.mean(), rows.mean()) == pytest.approx((319.5 + 115, 179.5 + 11), abs=12)


def test_who_stands_covers_who_lies():
    over, below = pose(0.0, 0.0, heading=1.57, depth=0.8), pose(0.0, 0.0, depth=0.4, posture=LYING)
    frame = renderer_of(2).render(moment(over, below))
    alone = renderer_of(2).render(moment(over, pose(2.0, 0.0)))
    assert frame.masks[0].sum() == alone.masks[0].sum() > frame.masks[1].sum()
    assert frame.visible.tolist() == [True, True]


def test_a_covered_animal_keeps_its_box_but_is_not_visible():
    frame = renderer_of(2).render(moment(pose(0.0, 0.0, depth=0.8), pose(0.01, 0.0, depth=0.4)))
    assert frame.visible.tolist() == [True, False]
    assert frame.boxes_xyxy[1] == pytest.approx(frame.boxes_xyxy[0], abs=12)


def test_an_animal_outside_the_picture_is_absent_and_a_cut_one_is_cut():
    close_up = {"camera_height_m": 2.0, "view_width_m": 3.0}
    frame = renderer_of(3, **close_up).render(moment(pose(2.6, 0.0), pose(1.4, 0.0), pose(0.0, 0.0)))
    assert frame.names == ("pig-02", "pig-03")
    assert frame.codes == (2, 3)
    assert frame.boxes_xyxy[0][2] == 640


def test_feeder_and_toy_have_masks_where_they_stand():
    frame = renderer_of(0).render(moment())
    feeder, toy = (box_of(frame.furniture_masks[name]) for name in ("feeder", "toy"))
    assert len(frame.annotation()) == 0
    assert feeder[0] < 320 < feeder[2]  # bottom centre
    assert feeder[1] > 180
    assert toy[0] < 320 < toy[2]  # top centre
    assert toy[3] < 180
    swung = renderer_of(0).render(SceneState(0, 0.0, (), (0.2, 0.0)))
    assert box_of(swung.furniture_masks["toy"])[0] > toy[0] + 15


def test_an_animal_at_the_feeder_covers_it():
    free, used = renderer_of(0).render(moment()), renderer_of(1).render(moment(pose(0.0, 0.4, heading=np.pi / 2)))
    assert used.furniture_masks["feeder"].sum() < free.furniture_masks["feeder"].sum()


@pytest.mark.parametrize(
    ("domain", "check"),
    [
        ("dusk", lambda day, other: other.image.mean() < 0.6 * day.image.mean()),
        ("straw", lambda day, other: (other.instance_map == day.instance_map).all()),
        ("black-coat", lambda day, other: coat(other) < 0.6 * coat(day)),
        ("low-camera", lambda day, other: other.masks.sum() > 1.3 * day.masks.sum()),
        ("crowded", lambda day, other: len(other.names) > 10),
        ("sheep", lambda day, other: other.names[0] == "sheep-01"),
        ("farm-b", lambda day, other: (other.furniture_masks["feeder"] != day.furniture_masks["feeder"]).any()),
    ],
)  # fmt: skip
def test_a_domain_looks_different_from_day(domain, check):
    day, other = (
        next(pen_frames(replace(load_pen_config(name), width=320, height=180), seed=5, frames=1))
        for name in ("day", domain)
    )
    assert (day.image != other.image).mean() > 0.1
    assert check(day, other)


@pytest.mark.parametrize("size", [(64, 64), (1280, 720)])
def test_other_sizes_show_the_same_pen(size):
    config = replace(PenConfig(), width=size[0], height=size[1])
    frame = next(pen_frames(config, seed=5, frames=1))
    same = next(pen_frames(PenConfig(), seed=5, frames=1))
    assert frame.image.shape == (size[1], size[0], 3)
    assert frame.names == same.names
    scale = size[0] / 640
    middles = (frame.boxes_xyxy[:, [0]] + frame.boxes_xyxy[:, [2]]) / 2
    assert middles == pytest.approx((same.boxes_xyxy[:, [0]] + same.boxes_xyxy[:, [2]]) / 2 * scale, abs=8)
