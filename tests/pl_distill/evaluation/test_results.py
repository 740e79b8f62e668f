"""results.json there and back, and what is said of a file that is not one."""

import json
from dataclasses import replace

import pytest

from pl_distill.evaluation.mot import TrackingCounts
from pl_distill.evaluation.results import (
    ClipReplay,
    ClipResult,
    Comparison,
    ModelIdentity,
    ModelResult,
    Results,
    ResultsError,
    Settings,
    read_results,
    write_results,
)


def scores(errors: int, boxes: int = 10):
    return TrackingCounts(scored_frames=5, truth_boxes=boxes, track_boxes=boxes, matches=boxes, misses=errors).scores()


def replay(**changes):
    values = {"day": "2026_01_26", "frames": 5, "frames_per_second": 4.5, "seconds": 1.5, "peak_rss_bytes": 2**30}
    values |= {
        "peak_vram_bytes": None,
        "tracks": "t.txt",
        "masks": "m.txt",
        "record": "t.json",
        "pictures": {"3": "p.jpg"},
        "video": None,
    }
    return ClipReplay(**{**values, **changes})


def of_model(role: str, errors: int) -> ModelResult:
    identity = ModelIdentity(role, "sam3", "0" * 64, 3_000_000, 2_000_000, 1_000_000, 112)
    clips = {"2026_01_26/000000": ClipResult(scores(errors), replay())}
    return ModelResult(scores(errors), clips, identity, 4.5, 3.0, 2**30)


SETTINGS = Settings("shards", "pen", "test", "pig", {"mode": "exact"}, 0.5, None, "cpu")


def of_two(**changes) -> Results:
    models = {"teacher": of_model("teacher", 1), "student": of_model("student", 2)}
    mutual = Comparison(scores(3), {"2026_01_26/000000": ClipResult(scores(3))}, mask_overlap=61.5)
    values = {"settings": SETTINGS, "split_sha256": "1" * 64, "seed": 7, "versions": {"torch": "2"}, "seconds": 9.0}
    values |= {"peak_rss_bytes": 2**31, "models": models, "student_vs_teacher": mutual, "notes": ["mind this"]}
    return Results(**{**values, **changes})


def test_two_models_come_back(tmp_path):
    write_results(tmp_path / "results.json", of_two())
    assert read_results(tmp_path / "results.json") == of_two()


def test_one_model_comes_back(tmp_path):
    single = of_two(models={"model": of_model("model", 1)}, student_vs_teacher=None, seconds=3.0, peak_rss_bytes=2**30)
    write_results(tmp_path / "results.json", single)
    assert read_results(tmp_path / "results.json") == single


def test_steps_of_a_longer_chain_come_back(tmp_path):
    chain = of_two(steps={"draw": 1.0, "evaluate": 8.0})
    write_results(tmp_path / "results.json", chain)
    assert json.loads((tmp_path / "results.json").read_text())["seconds"] == {
        "draw": 1.0,
        "evaluate": 8.0,
        "total": 9.0,
    }
    assert read_results(tmp_path / "results.json") == chain


def test_scores_lie_flat_where_readers_expect_them(tmp_path):
    write_results(tmp_path / "results.json", of_two())
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["schema"] == 1
    assert content["teacher"]["overall"]["mota"] == 90
    assert content["student"]["clips"]["2026_01_26/000000"]["mota"] == 80
    assert content["student"]["clips"]["2026_01_26/000000"]["replay"]["day"] == "2026_01_26"
    assert content["student_vs_teacher"]["clips"]["2026_01_26/000000"]["misses"] == 3
    assert "replay" not in content["student_vs_teacher"]["clips"]["2026_01_26/000000"]
    assert content["frames_per_second"] == 4.5


def test_what_a_newer_version_adds_is_passed_over(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, of_two())
    content = json.loads(path.read_text())
    content["student"]["overall"]["mask_iou"] = content["budget"] = 1
    path.write_text(json.dumps(content))
    assert read_results(path) == of_two()


def changed(*keys, value=None):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        if value is None:
            del content[keys[-1]]
        else:
            content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (changed("student", "overall", "idf1"), "models.student.overall.idf1: is missing"),
        (changed("seed", value="seven"), "seed: is 'seven', expected a whole number"),
        (changed("notes", value="none"), "notes: is 'none', expected a list"),
        (changed("teacher", "clips", value=[]), "teacher.clips: is missing or no mapping"),
        (changed("teacher", "clips", value={"x": 3}), "teacher.clips.x: is 3, expected the scores of a clip"),
        (changed("student", "model", "parameters", value=1.5), "parameters: is 1.5, expected a whole number"),
        (changed("settings", value=True), "settings: is True, expected a mapping"),
        (changed("schema", value=2), "has the schema 2, expected 1"),
        (changed("seconds", value={"draw": 1.0}), "seconds: is null, expected a number"),
    ],
)
def test_a_damaged_file_is_refused_by_the_name_of_its_key(tmp_path, change, complaint):
    path = tmp_path / "results.json"
    write_results(path, of_two())
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ResultsError) as caught:
        read_results(path)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"), [("[1]", "schema None"), ("{", "cannot be read"), ("", "cannot be read")]
)
def test_what_is_no_results_file_is_refused(tmp_path, text, complaint):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ResultsError, match=complaint):
        read_results(tmp_path / "results.json")


def test_an_absent_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(ResultsError, match="Run `pl-distill evaluate` first"):
        read_results(tmp_path / "results.json")


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, of_two())
    with pytest.raises(TypeError):
        write_results(path, replace(of_two(), versions={"torch": object()}))  # type: ignore[dict-item]
    assert read_results(path) == of_two()
    assert list(tmp_path.iterdir()) == [path]
