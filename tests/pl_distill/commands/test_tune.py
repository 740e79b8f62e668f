"""`pl-distill tune` from the command line, on two clips and a SAM 3 with random weights."""

import json
import shutil
from pathlib import Path

import pytest

from pl_distill.cli import main
from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.evaluation.results import read_results
from pl_distill.evaluation.tables import read_report_tables
from pl_distill.evaluation.tuning import SWITCHES, combinations, without_switches, write_variant
from pl_distill.models.sam3 import load_sam3, write_random_sam3
from pl_distill.streaming import Appearance, PruningPolicy


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_random_sam3("tiny", tmp_path_factory.mktemp("tune") / "model", seed=0)


@pytest.fixture(scope="module")
def words(model, noise_shards) -> list[str]:
    shards = noise_shards(model.parent / "shards", 4)
    data = ["--data", str(shards), "--split", "test", "--policy.retirement=null"]
    return ["tune", "--model", str(model), *data]


def test_thresholds_that_nothing_reaches_track_nothing(words, model, tmp_path, capsys):
    """As it is, random weights find something in noise, and all of it is false."""
    grid = [f"--grid.{name}=[1.0]" for name in ("new_det_thresh", "score_threshold_detection")]
    words = [*words, "--out", str(tmp_path), *grid]
    assert main(words) == 0
    best, worst = json.loads((tmp_path / "tune.json").read_text())["rows"]
    assert best["changes"] == {"new_det_thresh": 1.0, "score_threshold_detection": 1.0}
    assert (best["false_positives"], best["misses"], best["mota"]) == (0, 8, 0)
    assert {item["metric"] for item in best["differences"]} == {"mota", "idf1"}
    assert (worst["arm"], worst["changes"], worst["differences"]) == ("as-it-is", {}, [])
    assert worst["false_positives"] > 0 > worst["mota"]
    assert "| new_det_thresh 1, score_threshold_detection 1 | 0.0 (+" in capsys.readouterr().out
    (table,) = read_report_tables([tmp_path])
    assert [row[0] for row in table.rows] == ["new_det_thresh 1, score_threshold_detection 1", "as it is"]
    changed = load_sam3(tmp_path / best["arm"] / "model").config
    assert changed.new_det_thresh == 1.0 != load_sam3(model).config.new_det_thresh

    tracks = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.txt")}
    assert len(tracks) == 8, "tracks and masks of two clips, twice"
    assert main(words) == 0  # again: nothing is streamed anew
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.txt")} == tracks


def test_each_switch_of_the_policy_has_a_row(words, tmp_path):
    assert main([*words, "--out", str(tmp_path), "--switches=true", "--max_frames=2"]) == 0
    rows = {row["arm"]: row for row in json.loads((tmp_path / "tune.json").read_text())["rows"]}
    off = {
        "suppress_duplicates",
        "fill_holes",
        "one_to_one",
        "protect_memories",
        "full_window",
        "skip_blank",
        "any",
    }  # retirement is off as it is
    assert set(rows) == {"as-it-is", *(f"without-{name}" for name in off)}
    policies = {arm: read_results(tmp_path / arm / "results.json").settings.policy for arm in rows}
    assert all(not policies[f"without-{name}"][name] for name in off - {"any"})
    assert policies["as-it-is"]["fill_holes"] is policies["without-full_window"]["fill_holes"] is True


def test_without_any_switch_the_rest_of_the_policy_stays():
    given = {"mode": "bounded", "window_frames": 3, "encode_singly": True, "max_objects": 9, "skip_blank": False}
    policy = PruningPolicy(**given, appearance=Appearance(), fuse_boxes=True)
    arms = without_switches(policy)
    assert set(arms) == {f"without-{name}" for name in (*SWITCHES, "any")} - {"without-skip_blank"}
    for name, arm in arms.items():
        changed = {one for one in vars(policy) if getattr(arm, one) != getattr(policy, one)}
        assert changed == (set(SWITCHES) - {"skip_blank"} if name == "without-any" else {name.removeprefix("without-")})


def test_what_is_no_sam3_is_refused(words, tmp_path, capsys):
    (tmp_path / "config.json").write_text("{")
    words = [*words, "--model", str(tmp_path), "--out", str(tmp_path / "out"), "--switches=true"]
    assert main(words) == 1
    assert "config.json: is not JSON, expected a configuration of SAM 3." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_name_on_the_hub_is_refused_before_anything_is_asked_of_it(words, tmp_path, capsys):
    words = [*words, "--model", "facebook/sam3", "--out", str(tmp_path / "out"), "--switches=true"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "--model: is 'facebook/sam3', a name on the hub, expected a local folder or a shipped model." in error
    assert "hf download facebook/sam3 --local-dir sam3" in error
    assert not (tmp_path / "out").exists()


def test_combinations_are_all_but_the_one_that_is_there():
    config = {"a": 0.5, "n": 16, "on": True, "name": "x"}
    arms = combinations(config, {"a": [0.4, 0.5], "n": [16.0, 1.0]})
    assert arms == {
        "as-it-is": {},
        "a=0.4_n=16": {"a": 0.4, "n": 16},
        "a=0.4_n=1": {"a": 0.4, "n": 1},
        "a=0.5_n=1": {"a": 0.5, "n": 1},
    }
    assert isinstance(arms["a=0.4_n=1"]["n"], int)


def test_values_that_share_six_digits_are_two_arms():
    close = [0.12345678, 0.12345679]
    arms = combinations({"a": 0.5}, {"a": close})
    assert [change["a"] for change in arms.values() if change] == close
    assert list(arms) == ["as-it-is", "a=0.12345678", "a=0.12345679"]


@pytest.mark.parametrize("grid", [{"b": [1.0]}, {"on": [1.0]}, {"name": [1.0]}, {"a": []}])
def test_what_is_no_number_of_the_configuration_is_refused(grid):
    with pytest.raises(ConfigError, match="--grid"):
        combinations({"a": 0.5, "on": True, "name": "x"}, grid)


def test_a_folder_of_another_model_is_not_taken_for_this_one(model, tmp_path):
    write_variant(model, tmp_path, {"new_det_thresh": 0.1})
    write_variant(model, tmp_path, {"new_det_thresh": 0.1})
    with pytest.raises(CheckpointError, match="is of another model or run"):
        write_variant(model, tmp_path, {"new_det_thresh": 0.2})


def test_the_weights_of_another_model_are_not_taken_for_those_of_this_one(model, tmp_path):
    """Two trainings of one architecture have the same configuration."""
    other = Path(shutil.copytree(model, tmp_path / "other"))
    write_variant(model, tmp_path / "arm", {"new_det_thresh": 0.1})
    with pytest.raises(CheckpointError, match="of this model"):
        write_variant(other, tmp_path / "arm", {"new_det_thresh": 0.1})


@pytest.mark.parametrize(
    ("option", "named"), [("--grid={}", "--grid"), ("--grid.no=[1]", "'no'"), ("--jobs=0", "--jobs")]
)
def test_what_makes_no_sense_is_refused(words, tmp_path, capsys, option, named):
    more = [] if option.startswith("--grid") else ["--grid.new_det_thresh=[1.0]"]
    assert main([*words, "--out", str(tmp_path / "out"), option, *more]) == 1
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
