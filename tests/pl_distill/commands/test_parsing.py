"""What a user reads when a command line or a recipe is refused."""

import pytest

from pl_distill.cli import main
from pl_distill.commands.parsing import find_recipe
from pl_distill.errors import ConfigError


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"# caf\xe9\nmodel: {}\n"])
def test_a_recipe_that_is_no_text_is_refused(tmp_path, data):
    (tmp_path / "mine.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"mine\.yaml: is no text .* expected YAML in UTF-8"):
        find_recipe(str(tmp_path / "mine.yaml"))


def refusal(capsys, *words):
    recipes = ["--config", "distill/pen.yaml", "--config", "trainer/smoke.yaml", "--data.shards=none"]
    assert main(["fit", *recipes, *words]) == 1
    return capsys.readouterr().err.splitlines()[-1]


def test_an_error_below_a_class_path_names_key_and_reason_and_does_not_quote_the_recipe(capsys):
    said = refusal(capsys)
    assert 'Parser key "model": the following arguments are required: teacher, expected arguments' in said
    said = refusal(capsys, "--model.teacher=none", "--model.loss=pl_distill.losses.baselines.Nope")
    assert 'Parser key "loss"' in said
    assert "has no attribute 'Nope'" in said
    assert "Namespace" not in said


@pytest.mark.parametrize(
    ("option", "found"),
    [
        ("--trainer.accelerator=gpu", "No supported gpu backend found!"),
        ("--trainer.strategy=ddpp", "You selected an invalid strategy name"),
        ("--trainer.devices=0", "`Trainer(devices='0')` value is not a valid input using cpu accelerator"),
    ],
)
def test_a_trainer_that_cannot_be_built_is_refused(capsys, option, found, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert f"error: trainer: cannot be built ({found}" in refusal(capsys, "--model.teacher=none", option)
