"""The board of an evaluation, which was never run."""

from pl_distill.evaluation.board import write_board
from pl_distill.evaluation.results import read_results
from tests.pl_distill.evaluation.reporting import make


def test_no_model_of_an_earlier_evaluation_stays_on_the_board(tmp_path):
    write_board(tmp_path, read_results(make(tmp_path)))
    board = tmp_path / "tensorboard"
    assert {path.parent.name for path in board.glob("*/events*")} == {"teacher", "student", "student_vs_teacher"}
    write_board(tmp_path, read_results(make(tmp_path, roles=("model",))))
    assert [path.parent.name for path in board.glob("*/events*")] == ["model"]
