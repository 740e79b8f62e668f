"""The table of domains, on counts that can be worked out by hand."""

import json
from dataclasses import replace

import pytest

from pl_distill.errors import ConfigError
from pl_distill.evaluation.mot import TrackingCounts
from pl_distill.evaluation.results import ClipResult, ModelIdentity, ModelResult, Results, Settings
from pl_distill.evaluation.tables import read_report_tables
from pl_distill.evaluation.transfer import (
    domain_gaps,
    domain_scores,
    format_transfer,
    read_domains,
    transfer_rows,
    write_transfer,
)
from pl_distill.evaluation.tuning import tuning_table
from pl_distill.evaluation.window import window_table

BOXES = 100


def results(misses: list[int]) -> Results:
    """One model; every clip has 100 animals, and those that are found carry the right identity."""
    counts = [
        TrackingCounts(
            scored_frames=10,
            truth_boxes=BOXES,
            track_boxes=BOXES - missed,
            misses=missed,
            id_true_positives=BOXES - missed,
        )
        for missed in misses
    ]
    clips = {str(number): ClipResult(count.scores()) for number, count in enumerate(counts)}
    total = TrackingCounts(
        truth_boxes=BOXES * len(misses),
        track_boxes=BOXES * len(misses) - sum(misses),
        misses=sum(misses),
        id_true_positives=BOXES * len(misses) - sum(misses),
    )
    model = ModelResult(
        total.scores(), clips, ModelIdentity("", "sam3", "", 1, 1, 1, 1), 1.0, 1.0, 1, mask_overlap=80.0
    )
    return Results(Settings("", "", "test", "pig", {}, 0.5, None, "cpu"), "", 0, {}, 1.0, 1, {"model": model})


@pytest.fixture
def rows():
    return transfer_rows({"day": results([10, 0]), "dusk": results([30, 20]), "farm-b": results([60])})


def test_the_first_domain_has_scores_and_no_change(rows):
    assert (rows[0].domain, rows[0].mota, rows[0].mask_overlap) == ("day", pytest.approx(95), 80.0)
    assert rows[0].mota_change is None


def test_others_change_by_what_their_clips_of_equal_number_lose(rows):
    assert rows[1].mota_change.difference == pytest.approx(-20)
    assert (rows[1].mota_change.low, rows[1].mota_change.high) == pytest.approx((-20, -20))  # 20 in both clips
    assert rows[2].mota_change.difference == pytest.approx(-50)  # 60 misses against the 10 of the same clip
    assert rows[2].mota_change.low is None  # one clip gives no idea of the spread


def test_text_and_json_say_the_same(rows, tmp_path):
    json_path, text_path = write_transfer(tmp_path, rows)
    content = json.loads(json_path.read_text())
    assert [row["domain"] for row in content["rows"]] == read_domains(tmp_path) == ["day", "dusk", "farm-b"]
    text = text_path.read_text()
    assert text == format_transfer(rows)
    assert "| dusk | model | 75.0 (-20.0 [-20.0, -20.0]) |" in text
    assert "| farm-b | model | 40.0 (-50.0) |" in text


def test_the_gap_between_student_and_teacher_is_paired_by_clip(rows, tmp_path):
    of_one = {domain: (results(teacher), results(student)) for domain, teacher, student in (
        ("day", [10, 0], [12, 2]), ("dusk", [30, 20], [40, 40]))}  # fmt: skip
    both = {
        domain: replace(teacher, models={"teacher": teacher.models["model"], "student": student.models["model"]})
        for domain, (teacher, student) in of_one.items()
    }
    day, dusk = domain_gaps(both)
    assert (day.domain, day.mota.difference, day.mota.low, day.mota.high) == ("day", *[pytest.approx(-2)] * 3)
    assert (dusk.mota.difference, dusk.mota.low, dusk.mota.high) == (pytest.approx(-15), -20, -10)
    table = transfer_rows(both)
    assert "| dusk | -15.0 [-20.0, -10.0] |" in format_transfer(table, domain_gaps(both))
    assert "no change is called established" in format_transfer(rows)
    assert domain_gaps({"day": results([1])}) == []
    write_transfer(tmp_path, table, domain_gaps(both))
    (shown,) = read_report_tables([tmp_path])
    assert shown.rows[-1][:3] == ["dusk", "student less teacher", "-15.0 [-20.0, -10.0]"]
    assert domain_scores(tmp_path, "mota")["dusk"] == {"teacher": pytest.approx(75), "student": pytest.approx(60)}


def test_one_clip_is_no_plural():
    assert "\n1 clip of each domain and one seed of the weights" in format_transfer(
        transfer_rows({"day": results([1])})
    )
    assert "over 1 clip; in brackets" in tuning_table([], 1).text
    assert ". 1 clip and one seed" in window_table([], 1).text


def test_a_folder_without_scores_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="pl-distill transfer"):
        read_domains(tmp_path)
    (tmp_path / "transfer.json").write_text("[]")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_domains(tmp_path)
