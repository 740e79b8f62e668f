import pytest

from pl_distill.commands import ablation_cell
from pl_distill.commands.ablation_cell import FEATURES, LOG, Cell, Judge
from pl_distill.commands.steps import Steps
from pl_distill.errors import ConfigError
from pl_distill.evaluation.evaluate import RESULTS_FILE


def test_a_cell_that_was_not_scored_is_not_done_whatever_scores_lie_there(tmp_path, monkeypatch):
    judge = Judge("teacher", tmp_path / "shards", tmp_path / "cache", "pig", "test", None)
    cell = Cell("full", 0, tmp_path, [], {"seed": 0}, judge)
    trained = Steps(cell.folder / LOG, {"seed": 0}, total=2)
    trained.run("train", "distil", cell.folder / FEATURES, lambda: (cell.folder / FEATURES).write_text("{}"))
    (cell.folder / RESULTS_FILE).write_text("{}")
    monkeypatch.setattr(ablation_cell, "evaluate", lambda *_, **__: None)
    with pytest.raises(ConfigError, match=r"seed-0: was streamed, but not scored"):
        cell.make(wait=False)
    assert not cell.done
    assert not (tmp_path / "teacher/streamed").exists()
