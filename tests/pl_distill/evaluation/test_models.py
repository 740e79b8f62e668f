"""A model that is not there is answered with all that could have been meant."""

import shutil

import pytest

from pl_distill.assets import shipped_models
from pl_distill.errors import CheckpointError
from pl_distill.evaluation.models import plan_model, plan_models

EXPECTED = (
    "is not there, expected a .ckpt of pl-distill fit, a student's folder, a SAM 3's folder or hub name, a bundle, "
    "or a shipped model: pen_student, pen_teacher. "
)


def refusal(model, teacher=None, plan=plan_models):
    with pytest.raises(CheckpointError) as caught:
        plan(str(model), teacher)
    return str(caught.value)


@pytest.mark.parametrize("plan", [plan_models, plan_model])
@pytest.mark.parametrize("teacher", [None, "pen_teacher"])
@pytest.mark.parametrize("model", ["pen_studnt", "runs/fit/checkpoints/best.ckpt", "checkpoints/best.ckpt"])
def test_a_wrong_name_is_told_what_there_could_be(model, teacher, plan):
    assert refusal(model, teacher, plan) == f"{model}: {EXPECTED}Check the path or the spelling."


def test_a_best_checkpoint_that_was_never_written_is_told_of_the_last_one(tmp_path):
    (tmp_path / "last.ckpt").touch()
    said = refusal(tmp_path / "best.ckpt")
    assert (
        said == f"{tmp_path / 'best.ckpt'}: {EXPECTED}Give {tmp_path / 'last.ckpt'}: no validation has chosen a best."
    )


@pytest.mark.parametrize(("name", "kind"), [("pen_embedder", "embedder"), ("pen_behaviour", "behaviour")])
def test_a_model_of_another_kind_is_told_its_option(name, kind, tmp_path):
    fix = f"Give it as --{kind}; to export it, add --what {kind}."
    assert refusal(name) == f"{name}: is a model for --{kind}, expected a SAM 3 or a student. {fix}"
    family = {"embedder": "dinov3_vit", "behaviour": "behaviour_head"}[kind]
    mine = shutil.copytree(shipped_models("dinov3_vit", "dinov3_convnext", family)[name], tmp_path / "mine")
    assert refusal(mine).startswith(f"{mine}: is a model for --{kind}")


def test_models_that_are_there_pass():
    assert [source.source for source in plan_models("pen_student", None)] == ["pen_teacher", "pen_student"]
    assert plan_model("pen_teacher", None).teacher is None
    assert plan_model("facebook/sam3", None).source == "facebook/sam3"
