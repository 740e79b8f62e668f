"""The contract of difficulty: a pen that is easier would prove nothing about tracking."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from datamodules.pen import load_pen_config, pen_frames, simulate
from datamodules.pen.coats import make_coat
from datamodules.pen.herd import make_herd
from datamodules.pen.layout import Layout, mark
from pl_distill.evaluation.boxes import iou_matrix

SECONDS = 40


def full_masks(placed):
    """Everything that belongs to an animal, covered or not: (N, H * W)."""
    masks = np.zeros((len(placed.shapes), *placed.codes.shape), np.uint8)
    for mask, shape in zip(masks, placed.shapes, strict=True):
        for outline in shape.outlines:
            mark(mask, outline, 1)
    return masks.reshape(len(masks), -1).astype(np.float32)


def measure(config, seed):
    """Share of animal-frames with box IoU > 0.1 to a neighbour, and crossings a minute.

    A crossing: two masks overlap by 20 % of the smaller one, and when they part the centres have exchanged sides.
    """
    layout, close, animals, crossings = Layout(config, make_herd(config, seed)), 0, 0, 0
    overlapping = {}
    picture = np.zeros((config.height, config.width, 3), np.uint8)
    for state in simulate(config, seed, round(SECONDS * config.fps)):
        placed = layout.place(state)
        frame = layout.describe(state, placed, picture)
        overlap = iou_matrix(frame.boxes_xyxy, frame.boxes_xyxy) - np.eye(len(frame.boxes_xyxy))
        close += int((overlap.max(1) > 0.1).sum())
        animals += len(overlap)
        masks = full_masks(placed)
        shared, area = masks @ masks.T, masks.sum(1)
        for a, b in combinations(range(len(masks)), 2):
            between = np.array((state.poses[a].x - state.poses[b].x, state.poses[a].y - state.poses[b].y))
            if shared[a, b] >= 0.2 * max(min(area[a], area[b]), 1):
                overlapping.setdefault((a, b), between)
            elif (a, b) in overlapping:
                crossings += bool(overlapping.pop((a, b)) @ between < 0)
    return close / animals, crossings * 60 / SECONDS


@pytest.mark.parametrize("seed", [1_000_000, 1_000_001])
def test_neighbours_overlap_and_cross(small, seed):
    close, crossings_per_minute = measure(small, seed)
    assert small.num_animals == 8
    assert close >= 0.15
    assert crossings_per_minute >= 3


@pytest.mark.parametrize("domain", ["day", "black-coat", "farm-b", "sheep"])
def test_colour_alone_does_not_tell_animals_apart(domain):
    """The owner of a mean colour is guessed by the nearest mean over the owner's other pictures: 1 in 8 is chance."""
    config = replace(load_pen_config(domain), width=320, height=180)
    samples = {}
    for frame in pen_frames(config, seed=1_000_000, frames=8, every=20):
        for name, mask in zip(frame.names, frame.masks, strict=True):
            if mask.sum() > 50:
                samples.setdefault(name, []).append(frame.image[mask].astype(float).mean(0))
    assert len(samples) == 8
    right = []
    for owner, colours in samples.items():
        for number, colour in enumerate(colours):
            others = {name: np.mean(list_, 0) for name, list_ in samples.items() if name != owner}
            others[owner] = np.mean(colours[:number] + colours[number + 1 :], 0)
            right.append(min(others, key=lambda name: np.abs(others[name] - colour).sum()) == owner)
    assert np.mean(right) < 0.6
    directions = [np.mean(colours, 0) / np.linalg.norm(np.mean(colours, 0)) for colours in samples.values()]
    assert (np.array(directions) @ np.transpose(directions)).min() > 0.995  # of one hue: within 6 degrees in RGB


def test_marks_do_tell_animals_apart():
    coats = [make_coat("pink", 1_000_000, number).trunk.mean(2).ravel() for number in range(8)]
    likeness = np.corrcoef(coats) - np.eye(8)
    assert likeness.max() < 0.6


def test_crowded_is_harder_than_day(small):
    """More animals touch a neighbour (91 % against 83 %), in more pairs a frame (12.0 against 6.6)."""
    crowded = replace(load_pen_config("crowded"), width=small.width, height=small.height)
    assert (crowded.num_animals, small.num_animals) == (14, 8)
    day, full = (mean_overlap(config, seed=1_000_000, frames=60) for config in (small, crowded))
    assert full[0] > day[0]
    assert full[1] > 1.5 * day[1]


def mean_overlap(config, seed, frames):
    """Share of animal-frames with box IoU > 0.1 to a neighbour, and the number of such pairs in a frame."""
    layout, picture = Layout(config, make_herd(config, seed)), np.zeros((config.height, config.width, 3), np.uint8)
    close = pairs = animals = 0
    for state in simulate(config, seed, frames):
        boxes = layout.describe(state, layout.place(state), picture).boxes_xyxy
        touching = iou_matrix(boxes, boxes) - np.eye(len(boxes)) > 0.1
        close += int(touching.any(1).sum())
        pairs += int(touching.sum()) // 2
        animals += len(boxes)
    return close / animals, pairs / frames
