"""The shipped embedder on a drawn pen whose tracks change places, and the tracker around it."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from datamodules.edinburgh import read_edinburgh
from datamodules.masks import decode_masks
from datamodules.pen.config import load_pen_config
from datamodules.pen.writer import draw_pen
from pl_distill.errors import ConfigError
from pl_distill.models.embedder_load import load_embedder
from pl_distill.streaming import Appearance, PruningPolicy, Retirement, StreamingTracker, Tracks
from pl_distill.streaming.recognition import Recognition

SWAPPED_FROM = 40


@pytest.fixture(scope="module")
def embedder():
    return load_embedder()


@pytest.fixture(scope="module")
def pen(tmp_path_factory):
    """Frames and true tracks of four animals of which two have each other's number from the fortieth frame on."""
    out = tmp_path_factory.mktemp("pen")
    config = replace(load_pen_config("day"), num_animals=4)
    draw_pen(out, config, days=["2026_01_01"], clips_per_day=1, frames_per_clip=60, seed=5)
    (clip,) = read_edinburgh(out)
    numbers = {name: number for number, name in enumerate(sorted(next(clip.frames()).annotation.identities))}
    shown = []
    for frame in clip.frames():
        truth = frame.annotation
        rows = sorted(np.flatnonzero(truth.visible), key=lambda row: numbers[truth.identities[row]])
        ids = [numbers[truth.identities[row]] for row in rows]
        if frame.index >= SWAPPED_FROM:
            ids = [{0: 1, 1: 0}.get(number, number) for number in ids]
        order = np.argsort(ids)
        shown.append(
            (
                frame,
                Tracks(
                    tuple(ids[place] for place in order),
                    truth.boxes_xyxy[rows][order],
                    np.linspace(0.5, 0.9, len(rows), dtype=np.float32)[order],
                    decode_masks([truth.masks[row] for row in rows])[order],
                ),
            )
        )
    return shown


def test_tracks_that_change_places_get_their_animals_back(pen, embedder, caplog):
    recognition = Recognition(embedder, Appearance())
    right, renamed = [], []
    with caplog.at_level(logging.INFO):
        for frame, tracks in pen:
            named = recognition.identify(frame.image, tracks, frame.timestamp_s, frame.index)
            was = {tuple(box): number for number, box in zip(tracks.ids, tracks.boxes_xyxy, strict=True)}
            swapped = {0: 1, 1: 0} if frame.index >= SWAPPED_FROM else {}
            right.append(
                all(
                    swapped.get(was[tuple(box)], was[tuple(box)]) == identity
                    for identity, box in zip(named.ids, named.boxes_xyxy, strict=True)
                )
            )
            assert named.ids == tuple(sorted(named.ids))
            renamed += [(frame.index, named.renamed)] if named.renamed else []
            assert sorted(named.scores) == sorted(tracks.scores)
            of_box = {tuple(box): mask for box, mask in zip(tracks.boxes_xyxy, tracks.masks, strict=True)}
            assert all(
                np.array_equal(of_box[tuple(box)], mask)
                for box, mask in zip(named.boxes_xyxy, named.masks, strict=True)
            )
    assert all(right[:SWAPPED_FROM])
    assert not right[SWAPPED_FROM]
    assert all(right[SWAPPED_FROM + 9 :])
    assert renamed == [(right.index(True, SWAPPED_FROM), {0, 1})]
    changes = [record.getMessage() for record in caplog.records if "goes on as" in record.getMessage()]
    assert {change.split(": ")[1] for change in changes} == {
        "track 0 goes on as 1, which it looks like",
        "track 1 goes on as 0, which it looks like",
    }


def test_frames_between_two_looks_are_not_described(pen, embedder, monkeypatch):
    looked = []
    describe = embedder.describe_animals
    monkeypatch.setattr(embedder, "describe_animals", lambda *given: looked.append(1) or describe(*given))
    recognition = Recognition(embedder, Appearance(fps=2.0))
    for frame, tracks in pen[:13]:  # two seconds at six a second
        recognition.identify(frame.image, tracks, frame.timestamp_s, frame.index)
    assert len(looked) == 5


def test_a_clock_that_goes_back_begins_anew(pen, embedder):
    recognition = Recognition(embedder, Appearance())
    frame, tracks = pen[0]
    sizes = []
    for seconds in (100.0, 3.0, 3.05, 3.2):
        recognition.identify(frame.image, tracks, seconds, 0)
        sizes.append(recognition.identities.bytes())
    assert sizes[0] < sizes[1] == sizes[2] < sizes[3]


def test_animals_that_lie_on_each_other_are_not_looked_at(pen, embedder):
    frame, tracks = pen[0]
    beside = replace(tracks, boxes_xyxy=tracks.boxes_xyxy[[0, 0, *range(2, len(tracks))]])
    recognition = Recognition(embedder, Appearance())
    recognition.identify(frame.image, beside, 0.0, 0)
    one = embedder.dimension * 4
    assert recognition.identities.bytes() == (len(tracks) - 2) * one


def test_a_tracker_gives_identities_and_counts_their_bytes(model, prompt, preprocessing, clip, embedder):
    rules = PruningPolicy(retirement=None)
    plain = StreamingTracker(model, prompt, preprocessing, rules)
    known = StreamingTracker(model, prompt, preprocessing, replace(rules, appearance=Appearance(overlap=1.1)), embedder)
    for index, picture in enumerate(clip(3)):
        one, other = plain.update(picture, index / 6), known.update(picture, index / 6)
        assert len(one) == len(other) > 0
        assert set(other.ids) <= known.remembered()
        np.testing.assert_array_equal(sorted(map(tuple, one.boxes_xyxy)), sorted(map(tuple, other.boxes_xyxy)))
    assert known.session_bytes() > plain.session_bytes()
    known.reset()
    assert known.remembered() == set()


def test_a_pause_ends_every_identity(model, prompt, preprocessing, clip, embedder, caplog):
    tracker = StreamingTracker(model, prompt, preprocessing, PruningPolicy(appearance=Appearance()), embedder)
    first, second = clip(2)
    before = tracker.update(first, 0.0)
    with caplog.at_level(logging.INFO):
        after = tracker.update(second, 100.0)
    assert len(before) > 0
    assert not set(before.ids) & set(after.ids)
    assert tracker.remembered() == set(after.ids)
    ended = [message for record in caplog.records if "a pause of 100 s" in (message := record.getMessage())]
    assert {f"frame 1: track {identity} ends, a pause of 100 s" for identity in before.ids} <= set(ended)


def test_a_track_that_ends_is_let_go_and_called_by_its_identity(model, prompt, preprocessing, clip, embedder, caplog):
    ends = Retirement(probation_misses=1, hidden_frames=0, unmatched_frames=0, empty_frames=0)
    policy = PruningPolicy(retirement=ends, appearance=Appearance())
    tracker = StreamingTracker(model, prompt, preprocessing, policy, embedder)
    with caplog.at_level(logging.INFO):
        shown = [tracker.update(picture, index / 6).ids for index, picture in enumerate(clip(4))]
    ended = [message.split()[3] for record in caplog.records if "first" in (message := record.getMessage())]
    assert len(ended) > 0
    assert tracker.remembered() == set(shown[-1]) | (tracker.remembered() & set().union(*shown))
    assert len(tracker.remembered()) == len(tracker.session.obj_ids) < len(set().union(*shown))
    assert {int(one) for one in ended if one != "(never"} <= set().union(*shown)


def test_an_embedder_and_the_rules_go_together(model, prompt, preprocessing, embedder):
    for policy, given in ((PruningPolicy(appearance=Appearance()), None), (PruningPolicy(), embedder)):
        with pytest.raises(ConfigError, match=r"policy\.appearance.*both or neither"):
            StreamingTracker(model, prompt, preprocessing, policy, given)


def test_who_is_who_hangs_on_no_reported_box(model, prompt, preprocessing, clip, embedder, monkeypatch):
    described = []
    describe = embedder.describe_animals
    monkeypatch.setattr(
        embedder, "describe_animals", lambda frame, *given: described.append(given) or describe(frame, *given)
    )
    plain, fused = (
        StreamingTracker(
            model, prompt, preprocessing,
            PruningPolicy(retirement=None, appearance=Appearance(overlap=1.1), fuse_boxes=fuse), embedder,
        )
        for fuse in (False, True)
    )  # fmt: skip
    pulled = 0
    for index, picture in enumerate(clip(6)):
        before, after = (tracker.update(picture, index / 6) for tracker in (plain, fused))
        assert (before.ids, before.renamed) == (after.ids, after.renamed)
        for one, other in zip(*described[-2:], strict=True):  # boxes and masks
            np.testing.assert_array_equal(one, other)
        pulled += int((before.boxes_xyxy != after.boxes_xyxy).any(axis=1).sum())
    assert pulled > 4
