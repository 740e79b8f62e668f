"""The table of an ablation, on shares that can be worked out by hand."""

import json

import pytest
from scipy.stats import t

from pl_distill.evaluation.ablation import Share, format_markdown, make_table, write_table

SECONDS = {"full": 10.0, "mse": 5.0}


def cell(*cosines, found=(80, 80)):
    """A cosine for each of some clips of a frame each, and boxes found of 100 in each of two clips."""
    days = [f"2026_01_{number + 1:02d}" for number in range(9)]
    return {
        "level_cosine": {f"c{i}": Share(days[i], value, 1) for i, value in enumerate(cosines)},
        "mota": {f"t{i}": Share(days[i], value, 100) for i, value in enumerate(found)},
    }


def table(full, mse):
    return make_table({"full": full, "mse": mse}, "full", range(len(full)), {"recipe": "r.yaml"}, SECONDS)


def test_means_pool_clips_and_seeds():
    arms = table([cell(0.9, 0.7), cell(0.8, 0.8)], [cell(0.5, 0.5), cell(0.7, 0.5)]).arms
    assert arms["full"]["level_cosine"].mean == pytest.approx(0.8)
    assert arms["mse"]["level_cosine"].by_seed == pytest.approx([0.5, 0.6])
    assert arms["mse"]["level_cosine"].difference == pytest.approx(0.55 - 0.8)
    assert arms["full"]["level_cosine"].difference is None


def test_a_clip_with_more_boxes_weighs_more():
    many = {"mota": {"a": Share("d1", 90, 100), "b": Share("d2", 0, 10)}}
    found = make_table({"full": [many]}, "full", [0], {}, {"full": 1.0}).arms["full"]["mota"].mean
    assert found == pytest.approx(100 * 90 / 110)


def test_the_same_loss_on_every_day_leaves_no_doubt():
    entry = table([cell(0.9, 0.9, 0.9)], [cell(0.8, 0.8, 0.8)]).arms["mse"]["level_cosine"]
    assert (entry.low, entry.high) == pytest.approx((-0.1, -0.1))
    assert entry.p_value == pytest.approx(2 / 8)  # all days exchanged or none


def test_what_varies_by_seed_widens_the_interval():
    full = [cell(0.9, 0.9), cell(0.9, 0.9)]
    made = table(full, [cell(0.8, 0.8), cell(0.82, 0.82)])
    entry = made.arms["mse"]["level_cosine"]
    half = t.ppf(0.975, 1) * 0.01  # of two seeds, each 0.01 from their mean
    assert (entry.low, entry.high) == pytest.approx((-0.09 - half, -0.09 + half))
    assert "]*" not in format_markdown(made)  # both seeds are behind, which two of two are by chance half of the time


def test_clips_of_one_day_give_no_interval():
    one_day = {"level_cosine": {"a": Share("d", 0.5, 1), "b": Share("d", 0.7, 1)}}
    entry = table([one_day], [one_day]).arms["mse"]["level_cosine"]
    assert entry.difference == 0
    assert entry.low is entry.high is None
    assert "mota" not in table([one_day], [one_day]).arms["mse"]


def test_one_clip_of_one_day_is_no_plural():
    one = {"mota": {"a": Share("d", 50, 100)}}
    assert "mota: 1 clip of 1 day." in format_markdown(make_table({"full": [one]}, "full", [0], {}, {"full": 1.0}))


def test_the_table_is_written_for_people_and_for_programs(tmp_path):
    made = table([cell(0.9, 0.9, 0.9)], [cell(0.8, 0.8, 0.8, found=(70, 90))])
    json_path, text_path = write_table(tmp_path, made)
    content = json.loads(json_path.read_text())
    assert content["schema"] == 1
    assert content["arms"]["mse"]["mota"]["mean"] == pytest.approx(80)
    text = text_path.read_text()
    assert "without what a killed one spent before" in text
    assert text == format_markdown(made)
    assert "| full | 0.9000 | 80.00 | 10 |" in text
    assert "| mse | 0.8000 (-0.1000 [-0.1000, -0.1000]*) | 80.00 (+0.00 [-10.00, +10.00]) | 5 |" in text
    assert "cosine: 3 clips of 3 days; mota: 2 clips of 2 days" in text
    assert "- recipe: r.yaml" in text
