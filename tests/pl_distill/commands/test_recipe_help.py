"""`fit --config RECIPE --help` explains what the recipe can be told, with the recipe's own values."""

import pytest

from pl_distill.cli import main
from pl_distill.commands.recipe_help import help_of_recipes
from pl_distill.errors import ConfigError


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_recipes_help_explains_its_model_and_its_data(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "distill/pen.yaml", "--help"])
    text = flat(capsys.readouterr().out)
    assert not ended.value.code
    assert "--data.shards SHARDS Folder of image shards" in text
    assert "--data.batch_size BATCH_SIZE Frames per step and rank. (type: int, default: 16)" in text  # the recipe's
    assert "--model.student" in text
    assert "'body_size': 160" in text
    assert "All values: pl-distill fit --config distill/pen.yaml --print_config" in text


def test_a_later_recipe_lies_over_an_earlier_one():
    both = ["fit", "--config=behaviour/pen.yaml", "-c", "behaviour/tracks.yaml", "-h"]
    text = flat(help_of_recipes(both) or "")
    assert "default: runs/behaviour/head/model" in text  # weights, which the second adds
    assert "default: branched" in text  # of the first
    assert "--config behaviour/pen.yaml --config behaviour/tracks.yaml --print_config" in text


def test_another_class_begins_anew(tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("model: {class_path: pl_distill.modules.behaviour.BehaviourModule}\n")
    text = flat(help_of_recipes(["fit", "--config", "embedder/pen.yaml", "--config", str(other), "--help"]) or "")
    assert "--model.head" in text
    assert "--model.patch_size" not in text


@pytest.mark.parametrize("args", [["fit", "--help"], ["fit", "--config", "embedder/pen.yaml"]])
def test_without_a_recipe_or_a_question_nothing_is_said(args):
    assert help_of_recipes(args) is None


def test_of_trainer_files_alone_lightnings_help_is_shown(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", "trainer/cpu.yaml", "--help"])
    assert "--trainer.devices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("model: {class_path: pl_distill.nowhere.Module}", "cannot be imported"),
        ("model: {class_path: pl_distill.modules.behaviour.Nobody}", "cannot be imported"),
        ("model: {class_path: nothing}", "cannot be imported"),
        ("model: {class_path: pl_distill.modules.behaviour.BehaviourModule, init_args: {haed: frame}}", "model.haed"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(tmp_path, recipe, said):
    (tmp_path / "wrong.yaml").write_text(recipe)
    with pytest.raises(ConfigError, match=said):
        help_of_recipes(["fit", "--config", str(tmp_path / "wrong.yaml"), "--help"])
