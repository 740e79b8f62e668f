from dataclasses import replace

import numpy as np
import pytest

from pl_distill.evaluation.reid_scores import idf1, idf1_floors, link_days, open_set, share_of
from pl_distill.evaluation.simulated_year import Archive, DrawnYear, YearPlan, sampling_days
from pl_distill.evaluation.year_scores import format_year, score_year
from pl_distill.evaluation.year_scoring import YearScoring
from pl_distill.reid.gallery import BoundedGallery
from pl_distill.reid.matching import MatchPolicy
from pl_distill.reid.storage import normalised


def test_idf1_by_hand():
    truth = np.array([0, 0, 0, 1, 1])
    assert idf1(truth, np.array([5, 5, 5, 6, 6])).percent == 100
    assert idf1(truth, np.array([5, 5, 6, 6, 6])).percent == pytest.approx(100 * 2 * 4 / 10)
    assert idf1(truth, np.array([5, 5, -1, 6, 6])).percent == pytest.approx(100 * 2 * 4 / (5 + 4))


def test_idf1_has_an_interval_over_animals():
    # Animal 0 has its name always; animal 1 once in three: a wrong name of it and one without a name are its own.
    share = idf1(np.array([0, 0, 0, 1, 1, 1]), np.array([5, 5, 5, 6, 5, -1]))
    assert share.percent == pytest.approx(100 * 2 * 4 / (6 + 5))
    assert (share.low, share.high) == (0, 100)  # of two animals nothing follows
    many = idf1(np.repeat(np.arange(40), 3), np.repeat(np.arange(40), 3) * np.tile([1, 1, 0, 1, -1, -1], 20))
    assert 50 < many.low < many.percent < many.high < 80
    alike = idf1(np.repeat([0, 1, 2], 2), np.array([7, 7, 8, 8, 9, 9]))
    assert (alike.low, alike.high) == (pytest.approx(100 * 0.05 ** (1 / 3)), 100)


def test_nobody_named_is_an_idf1_of_0():
    share = idf1(np.array([0, 1]), np.array([-1, -1]))
    assert (share.percent, share.low) == (0, 0)
    assert share.high == pytest.approx(100 * (1 - 0.05**0.5))


def test_what_no_animal_shows_has_a_bound_and_no_interval_of_nothing():
    """Of eight animals none would show what 31 % of all do with a probability of 5 %."""
    never, always = share_of(np.zeros(80), np.arange(80) % 8), share_of(np.ones(80), np.arange(80) % 8)
    assert (str(never), str(always)) == ("0.0 (at most 31.2)", "100.0 (at least 68.8)")
    assert (never.low, never.high) == (0, pytest.approx(100 * (1 - 0.05 ** (1 / 8))))
    alike = share_of(np.arange(80) < 40, np.arange(80) % 8)  # half of each: what others would do is not known
    assert (alike.low, alike.high) == pytest.approx((50 * 0.05 ** (1 / 8), 100 - 50 * 0.05 ** (1 / 8)))
    single = share_of(np.ones(9), np.zeros(9, int))
    assert (single.low, single.high) == (0, 100)


def test_intervals_of_eight_animals_hold_the_truth_in_95_of_100_herds():
    rng, held, herds = np.random.default_rng(0), 0, 600
    for _ in range(herds):
        rates = rng.beta(6, 4, size=8)
        share = share_of(rng.random((24, 8)) < rates, np.tile(np.arange(8), (24, 1)))
        held += share.low <= 60 <= share.high
    assert 0.92 <= held / herds <= 0.98


def test_a_share_is_a_mean_over_animals_not_over_queries():
    share = share_of(np.array([1, 1, 1, 1, 0]), np.array([0, 0, 0, 0, 1]))
    assert share.percent == 50
    assert (share.low, share.high) == (0, 100)


def test_of_several_pens_intervals_draw_pens_and_not_animals():
    """Ten animals are right in one pen and ten are wrong in the other: two pens were seen, not twenty animals."""
    animals, pens = np.arange(20), np.repeat([0, 1], 10)
    right = animals < 10
    scores = np.diag(right.astype(np.float32))  # those of the second pen are like nobody
    judged = open_set(scores, animals, MatchPolicy(threshold=0.5, margin=0.0), pens)
    found = np.where(right, animals, -1)
    for share in (share_of(right, animals, pens), idf1(animals, found, pens), judged.recognised, judged.false_new):
        assert (share.low, share.high) == (0, 100)
    single = share_of(right, animals, np.zeros(20, int))
    assert single == share_of(right, animals)
    assert 20 < single.low < 50 < single.high < 80


def test_known_and_new_are_judged_apart():
    scores = np.float32([[0.9, 0.1, 0.0], [0.6, 0.7, 0.0], [0.1, 0.2, 0.3]])
    judged = open_set(scores, np.array([0, 0, 2]), MatchPolicy(threshold=0.5, margin=0.0))
    # Animal 0 is right once and taken for animal 1 once; animal 2 is taken for a new one.
    assert judged.recognised.percent == pytest.approx(25)
    assert judged.wrong.percent == pytest.approx(25)
    assert judged.false_new.percent == pytest.approx(50)
    # Without its animal the second query is still taken for animal 1.
    assert judged.false_merge.percent == pytest.approx(25)


def make_year(animals=5, noise=0.25, days=100, every=10, two_sided=False):
    """Animals of one look each; two-sided, what tells them apart turns round every two views, one of which is asked."""
    rng = np.random.default_rng(0)
    looks, common = (normalised(rng.standard_normal((count, 24)).astype(np.float32)) for count in (animals, 1))
    rows, vectors = [], []
    for day in YearPlan(days=days, every_days=every).drawn_days:
        for animal in range(animals):
            for view in range(8):
                look = common[0] + (-1) ** (view // 2) * looks[animal] if two_sided else looks[animal]
                rows.append((animal, day, view))
                vectors.append(look + noise * rng.standard_normal(24) / np.sqrt(24) * 4)
    codes, days_of, views = np.array(rows).T
    names = tuple(f"animal-{number}" for number in range(animals))
    return DrawnYear(
        names, np.zeros(animals, int), codes, days_of, views, normalised(np.array(vectors, np.float32)), "a" * 64
    )


def test_animals_are_named_day_by_day_without_being_told():
    year, held = make_year(noise=0.15), BoundedGallery()

    def tracklets(day):
        return np.arange(5), [year.vectors[(year.days == day) & (year.animals == animal)] for animal in range(5)]

    def learn(name, day, vectors):
        held.add(name, np.full(len(vectors), day * 86_400.0), vectors)

    def score(vectors):
        return held.gallery.scores(vectors), held.gallery.animals

    truth, found = link_days([0, 10, 20], tracklets, score, learn, MatchPolicy(threshold=0.6, margin=0.0))
    assert idf1(truth, found).percent == 100
    assert len(set(found.tolist())) == 5


@pytest.mark.parametrize("visits", [2, 3, 6])
def test_who_recognises_nobody_has_the_idf1_of_the_floors(visits):
    year = make_year(noise=0.15)

    def name_by(policy):
        held = BoundedGallery()

        def learn(name, day, vectors):
            held.add(name, np.full(len(vectors), day * 86_400.0), vectors)

        def tracklets(day):
            return np.arange(5), [year.vectors[(year.days == day) & (year.animals == animal)] for animal in range(5)]

        def score(vectors):
            return held.gallery.scores(vectors), held.gallery.animals

        truth, found = link_days(range(0, 10 * visits, 10), tracklets, score, learn, policy)
        return idf1(truth, found).percent

    never_alike, never_sure = MatchPolicy(threshold=1.0, margin=0.0), MatchPolicy(threshold=-1.0, margin=2.0)
    assert idf1_floors(visits) == pytest.approx((name_by(never_alike), name_by(never_sure)))


def test_an_archive_shows_only_what_was_drawn_and_never_a_view_that_is_asked():
    year = make_year(noise=0.0)
    archive = Archive(year)
    at = archive.vectors(2, np.array([0.0, 40.0]))
    assert at == pytest.approx(year.vectors[(year.animals == 2)][:2] * 0 + year.vectors[year.animals == 2][0], abs=1e-5)
    noisy = make_year()
    allowed = noisy.vectors[(noisy.animals == 1) & (noisy.days == 40) & ~noisy.asked]
    got = Archive(noisy).vectors(1, np.full(50, 40.0))
    assert ((got @ allowed.T).max(1) > 0.9999).all()


def test_a_full_archive_has_the_papers_rate():
    assert len(sampling_days(365, 7)) == 61_320


def test_idf1_is_of_days_that_had_no_part_in_the_choice_of_thresholds():
    year = make_year(noise=0.1)
    other = np.where(year.days < 50, (year.animals + 1) % 5, year.animals)  # until then, each looks like its neighbour
    how = YearScoring(per_hour=1, gaps=(1, 10, 30), validation_days=50, test_days=2)
    rows = score_year(replace(year, animals=other), how).rows
    assert [row.idf1.percent for row in rows] == [100] * 9
    assert {row.gap_days: row.visits for row in rows} == {1: 10, 10: 5, 30: 2}  # of days 50, 51, 60, 61 and so on
    assert {(row.idf1_if_new, row.idf1_if_unsure) for row in rows if row.visits == 2} == {idf1_floors(2)}


@pytest.mark.parametrize("bounded", [None, 20])
def test_a_year_is_scored_at_every_gap_and_animals_of_two_sides_are_met_by_their_sightings_only(bounded):
    how = YearScoring(per_hour=1, bounded=bounded, gaps=(1, 10, 30), validation_days=50, test_days=3)
    scores = score_year(make_year(two_sided=True), how)
    rows = {(row.method, row.gap_days): row for row in scores.rows}
    assert set(rows) == {(method, gap) for method in ("sightings", "recent", "mean") for gap in (1, 10, 30)}
    for gap in (1, 10, 30):
        assert rows["sightings", gap].rank1.percent > 90
        assert rows["sightings", gap].rank1.percent > rows["mean", gap].rank1.percent + 40
        stored = next(row for row in scores.to_json()["rows"] if (row["method"], row["gap_days"]) == ("sightings", gap))
        share = rows["sightings", gap].idf1
        assert stored["idf1"] == {"percent": share.percent, "low": share.low, "high": share.high}
        assert share.low <= share.percent <= share.high
    if bounded is not None:
        assert rows["sightings", 1].gallery == 5 * bounded
    table = format_year(scores)
    assert table.count("\n") == 1 + 9
    assert f"| {rows['mean', 30].mean_ap} | {rows['mean', 30].idf1} |" in table
