from dataclasses import replace

import numpy as np
import pytest

from pl_distill.errors import ConfigError
from pl_distill.models.embedder_load import load_embedder
from pl_distill.reid.errors import PoolError
from pl_distill.reid.identifier import NEWEST, Identifier
from pl_distill.reid.identify_policy import CALIBRATED_EMBEDDER, IdentifierPolicy
from pl_distill.reid.identities import events, merge, undo
from pl_distill.reid.matching import MatchPolicy
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.sampling import SamplingPolicy
from pl_distill.reid.storage import normalised

DAY = 86_400.0
POLICY = IdentifierPolicy(evidence=3, match=MatchPolicy(threshold=0.5, margin=0.05))


@pytest.fixture
def looks(unit):
    return unit(4, 16, seed=11)


@pytest.fixture
def see(unit):
    rng = np.random.default_rng(5)

    def make(identifier, looks, numbers, start, frames=4):
        named = {}
        for frame in range(frames):
            noisy = normalised((looks + 0.05 * rng.standard_normal(looks.shape)).astype(np.float32))
            named = identifier.observe(start + 60 * frame, numbers, noisy)
        return dict(named)

    return make


@pytest.mark.parametrize("gallery", ["mean", "sightings"])
def test_animals_keep_their_names_over_a_restart_and_a_week(open_pool, looks, see, gallery):
    policy = replace(POLICY, gallery=gallery)
    with open_pool() as pool, Identifier(pool, "cam", "monday", policy) as identifier:
        first = see(identifier, looks, [1, 2, 3, 4], 0.0)
    with open_pool() as pool, Identifier(pool, "cam", "sunday", policy) as identifier:
        again = see(identifier, looks[::-1], [1, 2, 3, 4], 6 * DAY)
    assert len(set(first.values())) == 4
    assert [again[number] for number in (4, 3, 2, 1)] == [first[number] for number in (1, 2, 3, 4)]


def test_a_stranger_becomes_a_new_animal(open_pool, looks, see, unit):
    with open_pool() as pool, Identifier(pool, "cam", "s", POLICY) as identifier:
        see(identifier, looks, [1, 2, 3, 4], 0.0)
        named = see(identifier, unit(1, 16, seed=77), [9], 600.0)
        assert named == {9: "animal-0005"}


def test_fragments_of_one_animal_share_its_slots(open_pool, looks, see):
    with open_pool() as pool, Identifier(pool, "cam", "s", POLICY) as identifier:
        for number in range(60):
            for second in (0, 1, 2):
                named = identifier.observe(60.0 * number + second, [number], looks[:1])
            assert named == {number: "animal-0001"}
        assert pool.count() == {"animal-0001": pool.sampling.per_hour}


def test_a_track_brings_what_it_showed_before_it_had_a_name_and_one_that_never_had_one_leaves_nothing(open_pool, looks):
    with open_pool() as pool, Identifier(pool, "cam", "s", replace(POLICY, evidence=4)) as identifier:
        slot_s = pool.sampling.slot_s
        for time_s in (0.0, 1.0, slot_s, slot_s + 1):
            assert pool.count() == {}
            identifier.observe(time_s, [1], looks[:1])
        identifier.observe(slot_s + 2, [1, 2], looks[:2])
        assert pool.vectors(["animal-0001"]).times_s == pytest.approx([0, slot_s], abs=1e-3)
        assert pool.count() == {"animal-0001": 2}


def test_of_a_track_without_a_name_only_good_crops_wait_for_the_pool(open_pool, looks):
    with (
        open_pool(sampling=SamplingPolicy(min_quality=0.5)) as pool,
        Identifier(pool, "cam", "s", POLICY) as identifier,
    ):
        for time_s, quality in ((0.0, 0.4), (1.0, 0.6), (2.0, 0.9)):
            identifier.observe(time_s, [1], looks[:1], [quality])
        assert pool.vectors(["animal-0001"]).times_s.tolist() == [1.0]


def test_what_is_no_embedding_is_refused_also_of_a_track_without_a_name(open_pool, looks):
    with open_pool() as pool, Identifier(pool, "cam", "s", POLICY) as identifier:
        identifier.observe(0.0, [1], looks[:1])
        with pytest.raises(PoolError, match="embedding of track 2, camera 'cam': has length 0"):
            identifier.observe(1.0, [1, 2], np.stack([looks[0], np.zeros_like(looks[0])]))


def test_nobody_is_named_before_the_evidence_is_in(open_pool, looks, see):
    with open_pool() as pool, Identifier(pool, "cam", "s", POLICY) as identifier:
        assert see(identifier, looks, [1, 2, 3, 4], 0.0, frames=2) == {}
        assert len(see(identifier, looks, [1, 2, 3, 4], 600.0, frames=1)) == 4


def test_an_animal_of_two_looks_is_met_by_either_only_in_single_sightings(tmp_path, looks, see):
    """A mean lies between its looks; the best of single sightings does not."""
    names = {}
    for gallery in ("mean", "sightings"):
        policy = replace(POLICY, gallery=gallery, match=MatchPolicy(threshold=0.9, margin=0.05))
        with EmbeddingPool(tmp_path / gallery, "a", 16) as pool, Identifier(pool, "cam", "s", policy) as identifier:
            see(identifier, looks[:1], [1], 0.0)
            for day in range(1, 9):  # the same track goes on in another coat
                see(identifier, looks[1:2], [1], day * DAY)
            names[gallery] = see(identifier, looks[:1], [2], 20 * DAY)[2]
    assert names == {"mean": "animal-0002", "sightings": "animal-0001"}


@pytest.mark.parametrize("match", [None, MatchPolicy(herd=8)])
@pytest.mark.parametrize(("gallery", "name"), [("mean", "animal-0001"), ("sightings", "animal-0002")])
def test_each_gallery_has_the_threshold_that_it_was_calibrated_to(open_pool, looks, gallery, name, match):
    here, beside = looks[0], normalised((looks[1] - (looks[1] @ looks[0]) * looks[0])[None])[0]
    alike = (0.725 * here + np.sqrt(1 - 0.725**2) * beside).astype(np.float32)  # a cosine of 0.725
    policy = IdentifierPolicy(gallery=gallery, match=match)
    with open_pool() as pool, Identifier(pool, "cam", "s", policy) as identifier:
        for frame in range(4):
            identifier.observe(60.0 * frame, [1], here[None])
        for frame in range(4):
            named = identifier.observe(600 + 60.0 * frame, [2], alike[None])
        assert named == {2: name}


def test_an_animal_behind_another_is_not_given_away_before_its_track_had_time_to_come_back(open_pool, looks):
    policy = replace(POLICY, evidence=1)
    with open_pool() as pool, Identifier(pool, "cam", "s", policy) as identifier:
        first = identifier.observe(0.0, [1], looks[:1])[1]
        assert identifier.observe(1.0, [2], looks[:1]) == {}
        assert identifier.observe(2.0, [1, 2], looks[:2]) == {1: first, 2: "animal-0002"}
        assert identifier.observe(13.0, [3], looks[:1]) == {3: first}  # the track has ended
        assert pool.animals == ["animal-0001", "animal-0002"]


@pytest.mark.parametrize("present", [["animal-0001"], ["animal-0001", "animal-0002"]])
def test_a_second_mask_of_a_named_animal_makes_no_double_of_it(open_pool, looks, present):
    with open_pool() as pool, Identifier(pool, "cam", "s", POLICY) as identifier:
        everybody, own = list(range(len(present))), looks[: len(present)]
        for second in range(20):
            if 5 <= second < 15:
                identifier.observe(second, [*everybody, 9], np.concatenate((own, looks[:1])))
            else:
                named = identifier.observe(second, everybody, own)
        assert named == dict(enumerate(present))
        assert pool.animals == present


def test_two_masks_of_an_animal_that_are_asked_about_in_one_frame_make_no_double_of_it(open_pool, looks, see):
    with open_pool() as pool, Identifier(pool, "cam", "s", POLICY) as identifier:
        see(identifier, looks[:2], [1, 2], 0.0)
        named = see(identifier, looks[[0, 0, 1]], [7, 8, 9], DAY)
        assert sorted(named.values()) == pool.animals == ["animal-0001", "animal-0002"]


def test_who_looks_like_an_animal_that_is_seen_beside_it_is_another_when_patience_ends(open_pool, looks):
    with open_pool() as pool, Identifier(pool, "cam", "s", replace(POLICY, patience=30)) as identifier:
        for second in range(5):
            identifier.observe(second, [1], looks[:1])
        named = [identifier.observe(5 + second, [1, 2], looks[[0, 0]]) for second in range(30)]
        assert named[-2:] == [{1: "animal-0001"}, {1: "animal-0001", 2: "animal-0002"}]


@pytest.mark.parametrize(
    ("embedder", "match", "warned"),
    [
        ("a" * 64, None, True),
        ("a" * 64, MatchPolicy(herd=8), True),  # the threshold was not given
        ("a" * 64, MatchPolicy(threshold=0.5, margin=0.05), False),
        (CALIBRATED_EMBEDDER, None, False),
    ],
)
def test_thresholds_of_another_embedder_are_warned_of_once(open_pool, looks, see, caplog, embedder, match, warned):
    with (
        open_pool(embedder=embedder) as pool,
        Identifier(pool, "cam", "s", IdentifierPolicy(match=match)) as identifier,
    ):
        see(identifier, looks, [1, 2, 3, 4], 0.0)
    assert len(caplog.messages) == warned
    assert all("embeddings are of aaaaaaaaaaaa" in message for message in caplog.messages)


def test_the_thresholds_are_those_of_the_shipped_embedder():
    assert load_embedder().identity == CALIBRATED_EMBEDDER


def test_a_half_life_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="half_life_days: is 0"):
        IdentifierPolicy(half_life_days=0)


def test_a_second_camera_meets_the_same_animals_under_other_numbers(open_pool, looks, see):
    with (
        open_pool() as pool,
        Identifier(pool, "left", "s", POLICY) as left,
        Identifier(pool, "right", "s", POLICY) as right,
    ):
        first = see(left, looks[:2], [1, 2], 0.0)
        assert see(right, looks[:1], [2], 600.0) == {2: first[1]}


@pytest.mark.parametrize("gallery", ["mean", "sightings"])
def test_a_camera_learns_what_another_saw_later(open_pool, looks, see, gallery):
    policy = replace(POLICY, gallery=gallery)
    with (
        open_pool() as pool,
        Identifier(pool, "left", "s", policy) as left,
        Identifier(pool, "right", "s", policy) as right,
    ):
        see(left, looks[:1], [1], 0.0)
        assert see(right, looks[:1], [1], 600.0) == {1: "animal-0001"}
        for day in range(1, 5):  # in another coat, for the left camera only
            see(left, looks[1:2], [1], day * DAY)
        assert see(right, looks[1:2], [2], 20 * DAY) == {2: "animal-0001"}


@pytest.mark.parametrize("gallery", ["mean", "sightings"])
def test_a_merge_and_its_undoing_reach_the_gallery_of_a_camera_that_runs(open_pool, looks, see, gallery):
    policy = replace(POLICY, gallery=gallery)
    with open_pool() as pool, Identifier(pool, "cam", "s", policy) as identifier:
        see(identifier, looks[:2], [1, 2], 0.0)
        event = merge(pool, "animal-0002", "animal-0001")
        assert see(identifier, looks[1:2], [3], DAY) == {3: "animal-0001"}
        undo(pool, events(pool)[-1].number)  # of the third track
        undo(pool, event)
        assert see(identifier, looks[1:2], [4], 2 * DAY) == {4: "animal-0002"}
        assert identifier._gallery.gallery.scores(looks[1:2])[0, 0] < 0.5  # the first one's look is its own again


def test_each_vector_is_learnt_once_however_many_cameras_there_are(open_pool, looks):
    policy = IdentifierPolicy(evidence=1, gallery="sightings")
    with (
        open_pool() as pool,
        Identifier(pool, "left", "s", policy) as left,
        Identifier(pool, "right", "s", policy) as right,
    ):
        for slot in range(4):
            for camera in (left, right):
                camera.observe(slot * pool.sampling.slot_s + 1, [1], looks[:1])
        right.observe(DAY, [2], looks[1:2])
        assert pool.count() == {"animal-0001": 4, "animal-0002": 1}
        # The left one has 4 by itself; the right one its own first, which the pool did not need, and the left one's.
        assert [len(left._gallery.gallery.vectors), len(right._gallery.gallery.vectors)] == [4, 4 + 1 + 1]


def test_cameras_whose_names_differ_in_another_script_work_side_by_side(open_pool):
    with open_pool() as pool, Identifier(pool, "北", "s", POLICY), Identifier(pool, "南", "s", POLICY):
        assert len(list(pool.path.glob("camera-*.lock"))) == 2


def test_two_identifiers_of_one_camera_are_refused_by_name(open_pool):
    with open_pool() as pool, Identifier(pool, "cam", "s", POLICY):
        with pytest.raises(PoolError, match="camera 'cam': is in use by process"):
            Identifier(pool, "cam", "t", POLICY)
        Identifier(pool, "other", "s", POLICY).close()
    with open_pool() as pool:
        Identifier(pool, "cam", "t", POLICY).close()


def test_a_number_that_stands_twice_in_a_frame_is_refused(open_pool, looks):
    with open_pool() as pool, Identifier(pool, "cam", "s", POLICY) as identifier:
        with pytest.raises(PoolError, match=r"tracks \[3, 3\]"):
            identifier.observe(0.0, [3, 3], looks[:2])
        assert pool.rows("SELECT count(*) FROM vectors") == [(0,)]


def test_a_link_is_in_the_log_with_its_score_and_can_be_undone(open_pool, looks, see):
    with open_pool() as pool, Identifier(pool, "cam", "s", POLICY) as identifier:
        see(identifier, looks[:1], [1], 0.0)
        (event,) = events(pool)
        assert event.kind == "link"
        assert "new, score" in event.reason
        undo(pool, event.number)
        assert pool.animals == []


def test_a_herd_is_not_exceeded_by_two_strangers_of_one_frame(open_pool, looks, see, unit):
    policy = IdentifierPolicy(evidence=1, patience=2, match=MatchPolicy(threshold=0.99, margin=0.5, herd=3))
    with open_pool() as pool, Identifier(pool, "cam", "s", policy) as identifier:
        see(identifier, looks[:2], [1, 2], 0.0)
        see(identifier, unit(2, 16, seed=5), [7, 8], 600.0)
        assert len(pool.animals) == 3


def test_what_is_never_recognised_does_not_grow(open_pool, looks, see, unit):
    """A bucket beside a herd that is complete and in view."""
    policy = IdentifierPolicy(evidence=1, patience=3, match=MatchPolicy(threshold=0.5, margin=0.05, herd=2))
    with open_pool() as pool, Identifier(pool, "cam", "s", policy) as identifier:
        everybody = np.concatenate([looks[:2], unit(1, 16, seed=9)])
        named = see(identifier, everybody, [1, 2, 9], 0.0, frames=40)
        assert set(named) == {1, 2}
        assert len(identifier._waiting[9].vectors) == NEWEST
        see(identifier, looks[:2], [1, 2], 3 * 3600.0, frames=1)
        assert not identifier._waiting  # its track has ended


def test_a_stranger_that_looks_like_two_is_a_new_animal_when_patience_ends_and_not_before(open_pool, looks, see):
    policy = IdentifierPolicy(evidence=1, patience=NEWEST + 6, match=MatchPolicy(threshold=0.5, margin=0.3))
    with open_pool() as pool, Identifier(pool, "cam", "s", policy) as identifier:
        see(identifier, looks[:2], [1, 2], 0.0, frames=1)
        between = normalised(looks[:1] + looks[1:2])
        assert see(identifier, between, [7], 600.0, frames=policy.patience - 1) == {}
        assert see(identifier, between, [7], 2400.0, frames=1) == {7: "animal-0003"}


def test_a_complete_herd_takes_the_best_guess_when_patience_ends(open_pool, looks, see, unit):
    policy = IdentifierPolicy(evidence=1, patience=3, match=MatchPolicy(threshold=0.5, margin=0.05, herd=2))
    with open_pool() as pool, Identifier(pool, "cam", "s", policy) as identifier:
        see(identifier, looks[:2], [1, 2], 0.0, frames=1)
        between = normalised(looks[:1] + looks[1:2])
        assert see(identifier, between, [7], 600.0, frames=1) in ({}, {7: "animal-0001"}, {7: "animal-0002"})
        assert see(identifier, between, [7], 900.0, frames=4)[7] in ("animal-0001", "animal-0002")
        assert pool.animals == ["animal-0001", "animal-0002"]
