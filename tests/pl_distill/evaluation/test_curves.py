from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from pl_distill.errors import ConfigError
from pl_distill.evaluation.board import write_board
from pl_distill.evaluation.curves import read_curves
from pl_distill.evaluation.plots import MAX_CURVES
from pl_distill.evaluation.report import report
from pl_distill.evaluation.results import Settings, read_results
from tests.pl_distill.evaluation.reporting import make, page


def write_scalars(folder: Path, start: int, stop: int, offset: float = 0.0) -> None:
    with SummaryWriter(str(folder)) as writer:
        for step in range(start, stop):
            writer.add_scalar("train/loss", step + offset, step)
            writer.add_scalar("train/direction", 2.0 * step, step)
            writer.add_scalar("lr-AdamW", 0.1, step)
        writer.add_scalar("val/loss", 5.0, stop - 1)


def test_curves_of_a_resumed_training_are_one(tmp_path):
    write_scalars(tmp_path / "version_0", 0, 6)
    write_scalars(tmp_path / "version_1", 4, 9, offset=100)
    curves = read_curves(tmp_path)
    assert list(curves) == ["loss", "direction"]  # and not the learning rate, which is of no stage
    assert curves["loss"]["train"].steps == tuple(range(9))
    assert curves["loss"]["train"].values == (0, 1, 2, 3, 104, 105, 106, 107, 108)  # the later run is believed
    assert curves["loss"]["val"].steps == (8,)


def test_nothing_is_left_of_a_training_that_was_begun_again(tmp_path):
    write_scalars(tmp_path, 0, 9)
    write_scalars(tmp_path, 0, 4, offset=100)
    curves = read_curves(tmp_path)
    assert curves["loss"]["train"].values == (100, 101, 102, 103)
    assert curves["loss"]["val"].steps == (3,)


def test_a_validation_beside_a_training_leaves_its_curves_alone(tmp_path):
    write_scalars(tmp_path, 0, 5)
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("val/loss", 7.0, 0)
    curves = read_curves(tmp_path)
    assert curves["loss"]["train"].steps == tuple(range(5))
    assert curves["loss"]["val"].values == (7, 5)


@pytest.mark.parametrize("part", ["train", "val"])
def test_scores_of_an_evaluation_are_no_curves_and_leave_those_of_the_training_alone(part, tmp_path):
    settings = Settings("runs/shards", "pen", part, "pig", {"mode": "exact"}, 0.5, None, "cpu")
    results = read_results(make(tmp_path, settings=settings))
    write_board(tmp_path, results)
    assert read_curves(tmp_path) == {}
    write_scalars(tmp_path / "logs", 0, 5)
    before = read_curves(tmp_path / "logs")
    write_board(tmp_path, results)  # is the last to write
    assert read_curves(tmp_path) == before


def test_training_curves_are_drawn_where_there_are_any(tmp_path):
    path = make(tmp_path / "scores")
    assert "How the student learned" not in page(report(path)).text
    write_scalars(tmp_path / "logs", 0, 5)
    found = page(report(path, logs=tmp_path / "logs"))
    assert "How the student learned" in found.text
    assert found.tags.count("svg") == 8 + 2
    write_scalars(tmp_path / "scores" / "logs", 0, 5)  # beside the results they are found without being named
    assert "How the student learned" in page(report(path)).text


def test_a_page_says_how_many_curves_it_leaves_out(tmp_path):
    path = make(tmp_path)
    with SummaryWriter(str(tmp_path / "logs")) as writer:
        for number in range(MAX_CURVES):
            writer.add_scalar(f"train/{number}", 1.0, 0)
        assert "more quantities" not in page(report(path)).text
        writer.add_scalar("val/recall_eat", 1.0, 0)
        writer.add_scalar("val/recall_walk", 1.0, 0)
    assert "2 more quantities are in the logs alone." in page(report(path)).text


def test_logs_without_curves_are_refused(tmp_path):
    path = make(tmp_path)
    (tmp_path / "logs").mkdir()
    with pytest.raises(ConfigError, match="holds no train/ or val/ scalars"):
        report(path, logs=tmp_path / "logs")
    assert not (tmp_path / "report.html").exists()
