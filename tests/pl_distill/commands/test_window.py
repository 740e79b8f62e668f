"""`pl-distill window` from the command line, on two clips and a SAM 3 with random weights."""

import json

import pytest

from pl_distill.cli import main
from pl_distill.evaluation.tables import read_report_tables
from pl_distill.evaluation.window import growth, window_policies
from pl_distill.models.sam3 import write_random_sam3
from pl_distill.streaming import PruningPolicy


@pytest.fixture(scope="module")
def words(tmp_path_factory, noise_shards) -> list[str]:
    root = tmp_path_factory.mktemp("window")
    shards = noise_shards(root / "shards", 8)
    model = write_random_sam3("tiny", root / "model", seed=0)
    return ["window", "--model", str(model), "--data", str(shards), "--policy.retirement=null"]


def test_one_command_gives_scores_and_bytes_for_each_window(words, tmp_path, capsys):
    assert main([*words, "--out", str(tmp_path), "--windows=[2]", "--unpruned=true"]) == 0
    rows = {row["window"]: row for row in json.loads((tmp_path / "window.json").read_text())["rows"]}
    assert list(rows) == ["none", "exact", "bounded", "2"]
    kept = {arm: row["session_bytes"] for arm, row in rows.items()}
    assert kept["2"] < kept["bounded"] <= kept["exact"] < kept["none"]
    assert rows["none"]["growth_bytes"] > 100_000
    assert (rows["none"]["mota"], rows["none"]["id_switches"]) == (rows["exact"]["mota"], rows["exact"]["id_switches"])
    assert rows["exact"]["differences"] == []
    assert {item["metric"] for item in rows["2"]["differences"]} == {"mota", "idf1"}
    printed = capsys.readouterr().out
    assert all(f"| {arm} | model |" in printed for arm in rows)
    assert "no difference is called established" in " ".join(printed.split())
    (table,) = read_report_tables([tmp_path])
    assert [row[0] for row in table.rows] == list(rows)


@pytest.mark.parametrize("option", ["--windows=[]", "--windows=[0]", "--jobs=0"])
def test_what_makes_no_sense_is_refused(words, tmp_path, capsys, option):
    assert main([*words, "--out", str(tmp_path / "out"), option]) == 1
    assert option.split("=")[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_growth_is_that_of_the_second_half():
    assert growth([5, 90, 10, 10, 10, 10, 10, 10]) == 0
    assert growth([0, 1, 2, 3, 4, 5, 6, 7]) == 1
    assert growth([1, 2, 3]) == 0  # too short to tell


def test_arms_differ_in_nothing_but_their_window():
    arms = window_policies(PruningPolicy(max_objects=3), [2, 6, 2], unpruned=False)
    assert {name: (arm.mode, arm.window_frames) for name, arm in arms.items()} == {
        "exact": ("exact", None),
        "bounded": ("bounded", None),
        "6": ("bounded", 6),
        "2": ("bounded", 2),
    }
    assert {arm.max_objects for arm in arms.values()} == {3}
