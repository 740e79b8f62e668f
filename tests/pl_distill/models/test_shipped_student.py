"""The student that travels with the package: small, of the teacher that travels with it, and used by its name."""

import pytest
import torch
from torch.nn import functional as F

from datamodules.files import sha256_of
from datamodules.pen import load_pen_config, pen_frames
from pl_distill.assets import shipped_models, shipped_students
from pl_distill.cli import main
from pl_distill.commands.parsing import recipes_folder
from pl_distill.errors import CheckpointError
from pl_distill.evaluation.models import ModelSource, plan_models
from pl_distill.models.sam3 import load_preprocessing, load_sam3, read_trunk_sha256, trunk_map
from pl_distill.models.student_io import find_student, load_student

NAME = "pen_student"
UNSEEN = 1_000_501


def test_it_is_small_and_has_its_card():
    folder = shipped_students()[NAME]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2e6
    card = (folder / "README.md").read_text()
    for recipe in ("distill/pen.yaml", "cache/pen.yaml"):
        assert f"- `{recipe}`, SHA-256 {sha256_of(recipes_folder() / recipe)}" in card
    theirs = (shipped_models()["pen_teacher"] / "README.md").read_text()
    assert 0 < mota_by_day(card) < mota_by_day(theirs)


def mota_by_day(card):
    (row,) = (line for line in card.splitlines() if line.startswith("| day |"))
    return float(row.split("|")[2])


def test_its_name_stands_for_it_and_its_teacher_is_the_shipped_one():
    student = load_student(NAME)
    assert student.origin == {"teacher": "pen_teacher", "teacher_trunk_sha256": read_trunk_sha256("pen_teacher")}
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
    assert plan_models(NAME, None) == [
        ModelSource("teacher", "pen_teacher"),
        ModelSource("student", NAME, "pen_teacher"),
    ]


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_student(NAME) == shipped_students()[NAME]
    (tmp_path / NAME).mkdir()
    assert find_student(NAME) is None
    with pytest.raises(CheckpointError, match=r"pen_student: is not a folder with student\.json"):
        load_student(NAME)


def test_it_answers_like_its_teacher_on_a_pen_that_neither_saw():
    preprocessing, teacher, student = load_preprocessing("pen_teacher"), load_sam3("pen_teacher"), load_student(NAME)
    for frame in pen_frames(load_pen_config("day"), seed=UNSEEN, frames=2):
        picture = preprocessing(frame.image)[None]
        with torch.inference_mode():
            cosine = F.cosine_similarity(student(picture), trunk_map(teacher, picture), dim=1).mean()
        assert cosine > 0.95


def test_a_release_halves_a_student_and_writes_its_card(tmp_path, capsys):
    words = ["--source", NAME, "--out", str(tmp_path / "mine"), "--card", "pen_student/card.yaml"]
    assert main(["release", *words]) == 0
    assert "# A student for drawn pens" in capsys.readouterr().out
    ours, theirs = load_student(tmp_path / "mine"), load_student(NAME)
    assert ours.origin == theirs.origin
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert (tmp_path / "mine" / "README.md").is_file()
