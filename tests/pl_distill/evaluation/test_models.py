"""A model that is not there is answered with all that could have been meant."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pl_distill.assets import shipped_models
from pl_distill.errors import CheckpointError
from pl_distill.evaluation.models import ModelSource, open_model, plan_model, plan_models

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


@pytest.mark.parametrize("student", [None, "pen_student"])
def test_weights_that_the_asked_for_precision_cannot_hold_are_named(student, tmp_path):
    """They are whole in the file: opened in float16 they would be infinite, and nothing would be found."""
    folder = shutil.copytree(shipped_models()["pen_teacher"], tmp_path / "teacher")
    weights = load_file(folder / "model.safetensors")
    key = "detector_model.detr_decoder.query_embed.weight"
    weights = {name: tensor.float() if name == key else tensor for name, tensor in weights.items()}
    weights[key][0, 0] = 1e5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    source = ModelSource("model", str(folder)) if student is None else ModelSource("model", student, str(folder))
    open_model(source, "pig", "cpu")
    with pytest.raises(CheckpointError, match=f"has NaN or infinity in {key}"):
        open_model(source, "pig", "cpu", torch.float16)
