"""The table of the console, and what must be said beside it."""

from dataclasses import replace

from pl_distill.evaluation.behaviour_scoring import Named, summarise
from pl_distill.evaluation.caveats import caveats
from pl_distill.evaluation.headline import (
    baseline_rows,
    columns,
    describe_difference,
    format_baselines,
    format_table,
    headline,
)
from pl_distill.evaluation.mot import TrackingCounts
from pl_distill.evaluation.results import (
    ClipReplay,
    ClipResult,
    Comparison,
    ModelIdentity,
    ModelResult,
    Results,
    Settings,
)
from pl_distill.evaluation.statistics import PairedDifference


def model(misses: int, boxes: int = 100, false: int = 0, frames: int = 10, judged: int = 10, **changes) -> ModelResult:
    found = boxes - misses
    counts = TrackingCounts(judged, boxes, found + false, found, 0, misses, false, id_true_positives=found)
    replay = ClipReplay("2026_01_26", frames, 5.0, 2.0, 2**30, None, "", "", "", {}, None)
    values = {"overall": counts.scores(), "clips": {"a": ClipResult(counts.scores(), replay)}}
    values |= {"model": ModelIdentity("x", "sam3", "", 3_000_000, 2_000_000, 500_000, 112)}
    values |= {"frames_per_second": 5.0, "seconds": 2.0, "peak_rss_bytes": 2**30}
    return ModelResult(**{**values, **changes})


def results(**models: ModelResult) -> Results:
    mutual = Comparison(model(4).overall, {}) if len(models) > 1 else None
    return Results(settings(), "", 0, {}, 1.0, 2**30, models, mutual)


def settings(device: str = "cuda", max_frames: int | None = None) -> Settings:
    return Settings("shards", "pen", "test", "pig", {}, 0.5, max_frames, device)


def rows(found: Results) -> dict[str, tuple]:
    return {row.label: (row.values, row.better) for row in headline(found)}


def test_differences_carry_a_sign_and_know_what_is_better():
    found = rows(results(teacher=model(10), student=model(15, frames_per_second=7.5)))
    assert found["MOTA %"] == (("90.00", "85.00", "-5.00", "96.00"), False)
    assert found["misses"] == (("10", "15", "+5", "4"), False)
    assert found["false positives"] == (("0", "0", "+0", "0"), None)
    assert found["frames per second"] == (("5.00", "7.50", "+2.50", ""), True)
    assert found["trunk parameters M"][0][:2] == ("2.000", "2.000")


def test_masks_have_a_row_of_their_own():
    two = results(teacher=model(1, mask_overlap=80.0), student=model(1, mask_overlap=75.5))
    two = replace(two, student_vs_teacher=Comparison(model(1).overall, {}, mask_overlap=90.0))
    assert rows(two)["mask overlap %"] == (("80.00", "75.50", "-4.50", "90.00"), False)
    assert rows(results(model=model(1)))["mask overlap %"] == (("-",), None)


def test_a_tracker_that_loses_the_hard_animals_names_no_behaviour_better():
    """Eight animals walk; teacher and student name six of them right, but the student has lost the two others."""
    all_of_them = summarise([Named("walk", "walk", "walk")] * 6 + [Named("walk", "walk", "lie")] * 2, ("walk", "lie"))
    easy_ones = summarise([Named("walk", "walk", "walk")] * 6 + [Named("walk", "walk", None)] * 2, ("walk", "lie"))
    found = rows(results(teacher=model(0, behaviour=all_of_them), student=model(2, behaviour=easy_ones)))
    assert found["behaviour right of all %"] == (("75.00", "75.00", "+0.00", ""), None)
    assert found["behaviour, animals covered %"] == (("100.00", "75.00", "-25.00", ""), False)
    assert found["behaviour top-1 %"] == (("75.00", "100.00", "-", ""), None)  # of other animals: no difference
    assert found["behaviour macro-F1 %"][0][2:] == ("-", "")
    assert rows(results(model=model(0, behaviour=easy_ones)))["behaviour right of all %"] == (("75.00",), None)


def test_fewer_errors_are_better():
    assert rows(results(teacher=model(15), student=model(10)))["misses"][1] is True


def test_what_is_undefined_has_no_difference():
    found = rows(results(teacher=model(0, boxes=0), student=model(0, boxes=0)))
    assert found["MOTA %"] == (("-", "-", "-", "96.00"), None)


def test_vram_is_a_row_only_where_there_is_a_gpu():
    assert "peak VRAM GiB" not in rows(results(model=model(1)))
    with_gpu = rows(results(teacher=model(1, peak_vram_bytes=3 * 2**30), student=model(1, peak_vram_bytes=2**30)))
    assert with_gpu["peak VRAM GiB"] == (("3.00", "1.00", "-2.00", ""), True)


def test_what_streaming_keeps_is_a_row_where_it_was_measured():
    assert "kept between frames MiB" not in rows(results(model=model(1)))
    kept = rows(results(teacher=model(1, session_bytes=3 * 2**20), student=model(1, session_bytes=2**20)))
    assert kept["kept between frames MiB"] == (("3.00", "1.00", "-2.00", ""), True)


def test_baselines_stand_below_the_model_that_they_run_on():
    two = replace(
        results(teacher=model(10, session_bytes=2**20), student=model(15)),
        baselines={"student-iou": model(25), "teacher-stock": model(20, session_bytes=2**24)},
    )
    shown = [(row.role, row.label, row.values[0], row.values[-1], row.difference) for row in baseline_rows(two)]
    assert [row[:4] for row in shown] == [
        ("teacher", "ours", "90.00", "1.0"),
        ("teacher", "stock transformers", "80.00", "16.0"),
        ("student", "ours", "85.00", "-"),
        ("student", "detector + IoU", "75.00", "-"),
    ]
    assert [row[4] and row[4].difference for row in shown] == [None, 10, None, 10]
    assert baseline_rows(results(model=model(1))) == []
    assert format_baselines(two).splitlines()[-1].endswith(" +10.00 not established")


def test_a_difference_is_printed_with_its_verdict():
    sure = PairedDifference("mota", 4, 2, 6, 0.01, clips=8, days=6, seeds=3)
    assert describe_difference(sure) == "+4.00 [+2.00, +6.00] established"
    for less in ({"days": 5}, {"seeds": 1}, {"low": -1.0}):
        assert describe_difference(replace(sure, **less)).endswith("] not established")
    assert describe_difference(replace(sure, low=None, high=None)) == "+4.00 not established"


def test_the_table_is_aligned():
    two = results(teacher=model(10), student=model(15))
    lines = format_table(two).splitlines()
    assert lines[0].split() == ["teacher", "student", "difference", "student", "vs", "teacher"]
    assert set(lines[1]) == {"-"}
    at = lines[0].index("student") + len("student")
    assert lines[2][:at].endswith("85.00")
    assert columns(results(model=model(1))) == ("model",)
    assert format_table(results(model=model(10))).splitlines()[2].split() == ["MOTA", "%", "90.00"]


def test_a_sound_single_model_on_a_gpu_needs_no_caveat():
    assert caveats(settings(), {"model": model(10)}) == []


def test_a_comparison_of_few_clips_is_not_established():
    (note,) = caveats(settings(), {"teacher": model(10), "student": model(10)})
    assert note.startswith("1 clip of 1 day and one seed: differences between teacher and student are not established")


def test_each_limit_is_said():
    notes = " ".join(caveats(settings("cpu", 7), {"model": model(10, frames=30, judged=10)}))
    assert "10 of 30 frames are labelled" in notes
    assert "first 7 frames" in notes
    assert "measured on a CPU" in notes
    assert "No frame is labelled" in caveats(settings(), {"model": model(0, boxes=0, judged=0, false=1)})[0]


def test_what_a_policy_adds_to_sam3_is_said():
    policy = {"appearance": {"embedder": "pen_embedder"}, "fuse_boxes": True}
    notes = " ".join(caveats(replace(settings(), policy=policy), {"model": model(10)}))
    assert "by 'pen_embedder': scores are of tracker and embedder together" in notes
    assert "A track's box is the mean of that around its mask and of the detection's" in notes
    assert "A track's box" not in " ".join(caveats(settings(), {"model": model(10)}))


def test_labels_without_an_animal_are_the_first_to_be_said():
    notes = caveats(settings(), {"model": model(0, boxes=0, judged=10, false=4)})
    assert notes[0].startswith("None of the 10 labelled frames shows an animal: every box that was found counts as")
    assert not any("No frame is labelled" in note for note in notes)


def test_without_labels_nobody_is_said_to_have_found_nothing():
    notes = caveats(settings(), {role: model(0, boxes=0, judged=0) for role in ("teacher", "student")})
    assert notes[0] == "No frame is labelled: there are no scores against truth."
    assert not any("was found in any judged frame" in note for note in notes)


def test_models_that_find_nothing_or_everything_are_named():
    notes = caveats(settings(), {"teacher": model(100), "student": model(50, false=60, large_boxes=80.0)})
    assert notes[0] == "No 'pig' was found in any judged frame by the teacher."
    assert notes[1].startswith("MOTA of the student is not above zero")
    assert notes[2].startswith("Many boxes of the student cover more than half of the picture (80 %)")
