"""Intervals and probabilities, on counts that can be worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from pl_distill.evaluation import statistics
from pl_distill.evaluation.mot import TrackingCounts
from pl_distill.evaluation.results import ClipReplay, ClipResult, ModelIdentity, ModelResult, Results, Settings
from pl_distill.evaluation.statistics import (
    PairedDifference,
    compare_models,
    compare_pairs,
    show_difference,
    show_score,
)

BOXES = 100


def results(teacher: list[int], student: list[int], days: list[str] | None = None) -> Results:
    """Misses of each clip; every clip has 100 animals and of those found, all carry the right identity."""
    days = days or [f"2026_01_{number + 1:02d}" for number in range(len(teacher))]

    def model(misses: list[int]) -> ModelResult:
        clips = {}
        for number, (missed, day) in enumerate(zip(misses, days, strict=True)):
            found = BOXES - missed
            counts = TrackingCounts(
                scored_frames=10, truth_boxes=BOXES, track_boxes=found, misses=missed, id_true_positives=found
            )
            replay = ClipReplay(day, 1, 1.0, 1.0, 1, None, "", "", "", {}, None)
            clips[str(number)] = ClipResult(counts.scores(), replay)
        return ModelResult(TrackingCounts().scores(), clips, ModelIdentity("", "sam3", "", 1, 1, 1, 1), 1.0, 1.0, 1)

    models = {"teacher": model(teacher), "student": model(student)}
    return Results(Settings("", "", "test", "pig", {}, 0.5, None, "cpu"), "", 0, {}, 1.0, 1, models)


def test_the_difference_is_that_of_pooled_scores():
    mota, idf1 = compare_models([results([10, 0], [30, 0])])
    assert (mota.metric, idf1.metric) == ("mota", "idf1")
    assert mota.difference == pytest.approx(-10)  # 190 of 200 found against 170
    assert idf1.difference == pytest.approx(100 * 340 / 370 - 100 * 380 / 390)
    assert (mota.clips, mota.days, mota.seeds) == (2, 2, 1)


def test_the_same_loss_in_every_clip_leaves_no_doubt_about_its_size():
    mota, _ = compare_models([results([10] * 4, [12] * 4)])
    assert (mota.low, mota.high) == pytest.approx((-2, -2))
    assert mota.p_value == pytest.approx(2 / 16)  # all exchanged or none: 2 of 2^4


def test_losses_and_gains_that_cancel_give_an_interval_around_zero():
    mota, _ = compare_models([results([10] * 6, [5, 15, 5, 15, 5, 15])])
    assert mota.difference == pytest.approx(0)
    assert mota.low < 0 < mota.high
    assert mota.low >= -5
    assert mota.high <= 5
    assert mota.p_value == 1


def test_clips_that_nobody_labelled_are_none_of_the_comparison():
    """One day has labels: it tells no spread, however many others were watched."""
    run = results([10] * 6, [30] * 6)
    nobody = TrackingCounts().scores()
    models = {
        role: replace(
            model,
            clips={n: c if n == "0" else replace(c, scores=nobody) for n, c in model.clips.items()},
        )
        for role, model in run.models.items()
    }
    mota, _ = compare_models([replace(run, models=models)])
    assert (mota.difference, mota.low, mota.high) == (-20, None, None)
    assert (mota.clips, mota.days) == (1, 1)


def test_labelled_clips_without_an_animal_have_no_scores_to_compare():
    run = results([10], [30])
    empty = TrackingCounts(scored_frames=10, track_boxes=3, false_positives=3).scores()
    models = {
        role: replace(model, clips={n: replace(c, scores=empty) for n, c in model.clips.items()})
        for role, model in run.models.items()
    }
    assert compare_models([replace(run, models=models)]) == []


def test_equal_models_do_not_differ():
    mota, idf1 = compare_models([results([3, 5], [3, 5])])
    for item in (mota, idf1):
        assert (item.difference, item.low, item.high, item.p_value) == (0, 0, 0, 1)


def test_clips_of_one_day_count_once():
    by_clip = compare_models([results([10] * 4, [12] * 4)])[0]
    one_day = compare_models([results([10] * 4, [12] * 4, days=["2026_01_01"] * 4)])[0]
    two_days = compare_models([results([10] * 4, [12] * 4, days=["2026_01_01", "2026_01_02"] * 2)])[0]
    assert (by_clip.p_value, two_days.p_value, one_day.p_value) == (1 / 8, 1 / 2, 1)
    assert (one_day.low, one_day.high, one_day.days) == (None, None, 1)


def test_seeds_are_drawn_too():
    runs = [results([10] * 3, [student] * 3) for student in (10, 12, 14)]
    mota, _ = compare_models(runs)
    assert mota.difference == pytest.approx(-2)
    assert mota.seeds == 3
    # Within a seed all clips agree, so that only seeds spread, by 2: days alone would say p = 2 / 8.
    half = t.ppf(0.975, 2) * 2 / np.sqrt(3)
    assert (mota.low, mota.high) == pytest.approx((-2 - half, -2 + half))
    assert mota.p_value == pytest.approx(max(2 / 8, 2 * t.sf(2 / (2 / np.sqrt(3)), 2)))


def test_days_that_spread_more_than_seeds_keep_the_interval_of_the_draws():
    alone = compare_models([results([10] * 6, [2, 18, 6, 22, 4, 26])])[0]
    runs = [results([10] * 6, [2 + seed, 18 + seed, 6 + seed, 22 + seed, 4 + seed, 26 + seed]) for seed in (-1, 0, 1)]
    three = compare_models(runs)[0]
    half = t.ppf(0.975, 2) * 1 / np.sqrt(3)
    assert three.low < three.difference - half
    assert three.high > three.difference + half
    assert three.p_value == alone.p_value


@pytest.mark.parametrize(("of_seeds", "of_days"), [(3.0, 1.0), (2.0, 2.0)])
def test_students_that_differ_by_seed_alone_are_hardly_ever_called_established(monkeypatch, of_seeds, of_days):
    """Nothing is there: three seeds and six days move the student, whatever it is, around its teacher."""
    monkeypatch.setattr(statistics, "DRAWS", 200)
    rng = np.random.default_rng(0)
    called, tables = 0, 150
    for _ in range(tables):
        moved = of_seeds * rng.standard_normal((3, 1)) + of_days * rng.standard_normal((1, 6))
        runs = [results([50] * 6, [50 + round(one) for one in seed]) for seed in moved]
        called += compare_models(runs)[0].established
    assert called / tables <= 0.09  # 0.05 and two standard errors


def test_many_days_are_sampled_and_agree_with_the_binomial():
    mota, _ = compare_models([results([10] * 14, [12] * 14)])
    assert mota.p_value < 0.002  # 2 of 2^14, and the observed outcome itself among 10,000


@pytest.mark.parametrize(
    ("days", "seeds", "low", "high", "p_value", "expected"),
    [
        (6, 3, -3.0, -1.0, 0.01, True),
        (6, 3, 0.5, 1.0, 0.05, True),
        (6, 3, 0.5, 1.0, 0.06, False),
        (6, 3, -3.0, 1.0, 0.01, False),
        (5, 3, -3.0, -1.0, 0.01, False),
        (6, 2, -3.0, -1.0, 0.01, False),
        (6, 3, None, None, 0.01, False),
    ],
)
def test_a_claim_needs_days_seeds_an_interval_without_zero_and_a_small_probability(
    days, seeds, low, high, p_value, expected
):
    clips = 12  # of one day they are one draw, however many
    assert PairedDifference("mota", -2.0, low, high, p_value, clips, days, seeds).established is expected


def test_without_animals_nothing_is_compared():
    empty = results([0], [0])
    none = ClipResult(TrackingCounts().scores())
    models = {role: replace(model, clips={"0": none}) for role, model in empty.models.items()}
    assert compare_models([replace(empty, models=models)]) == []


def test_any_two_models_are_compared_over_the_clips_that_both_have():
    run = results([10, 0, 50], [30, 0, 50])
    teacher, student = run.models["teacher"], run.models["student"]
    shorter = replace(student, clips={name: student.clips[name] for name in ("0", "1")})
    mota, _ = compare_pairs([(teacher, shorter)])
    assert (mota.clips, mota.difference) == (2, pytest.approx(-10))
    assert compare_pairs([(teacher, replace(student, clips={}))]) == []


def test_a_score_is_shown_with_its_difference_and_interval():
    change = PairedDifference("mota", -1.5, -3.0, 0.1, p_value=0.1, clips=6, days=6, seeds=1)
    assert show_difference(change) == "-1.5 [-3.0, +0.1]"
    assert show_score(71.23, change) == "71.2 (-1.5 [-3.0, +0.1])"
    assert show_score(71.23, replace(change, low=None)) == "71.2 (-1.5)"
    assert (show_difference(None), show_score(71.23, None), show_score(None, change)) == ("-", "71.2", "-")
