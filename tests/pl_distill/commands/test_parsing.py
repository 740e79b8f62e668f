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


def test_an_error_below_a_class_path_names_the_whole_option_and_does_not_quote_the_recipe(capsys):
    see = "See `pl-distill fit --help`."
    said = refusal(capsys)
    assert said == f"error: pl-distill fit: lacks --model.teacher, expected every option that has no default. {see}"
    said = refusal(capsys, "--model.teacher=none", "--model.loss=pl_distill.losses.baselines.Nope")
    assert said.startswith("error: --model.loss: is 'pl_distill.losses.baselines.Nope' (module 'pl_distill.losses.")
    assert "has no attribute 'Nope')" in said
    said = refusal(capsys, "--model.teacher=none", "--data.appearance.blurr=3")
    assert said.startswith("error: pl-distill fit: does not take --data.appearance.blurr, expected arguments that")
    said = refusal(capsys, "--model.teacher=none", "--data.batch_size=x")
    assert said == f"error: --data.batch_size: is 'x', expected a whole number. {see}"
    said = refusal(capsys, "--model.teacher=none", "--trainer.callbacks+", "callbacks.nothing.X")
    assert said.startswith("error: --trainer.callbacks: is 'callbacks.nothing.X' (module 'callbacks' has no attribute")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("model.student.init_args.fpn_chanels", "--model.student.fpn_channels"),
        ("model.loss.pyramid_shares", "--model.loss.pyramid_share"),
        ("data.batch_sise", "--data.batch_size"),
    ],
)
def test_an_option_of_a_class_that_is_nearly_one_is_told_the_one_that_is_meant(given, meant, capsys):
    said = refusal(capsys, "--model.teacher=none", f"--{given}=3")
    assert said.endswith(f"arguments that the command knows. Is {meant} meant? See `pl-distill fit --help`.")
    assert "meant" not in refusal(capsys, "--model.teacher=none", f"--{given.rpartition('.')[0]}.zzz=3")


def test_a_wrong_value_in_a_recipe_is_told_with_its_option(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("data:\n  init_args:\n    batch_size: many\ntrainer:\n  max_steps: 3\n")
    said = refusal(capsys, "--model.teacher=none", "--config", str(tmp_path / "mine.yaml"))
    assert said.startswith("error: --data.batch_size: is 'many', expected a whole number.")


def test_arguments_beside_a_class_path_are_refused_with_what_was_given(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(
        "model:\n  class_path: pl_distill.modules.distillation.DistillationModule\n  a: 1\n"
    )
    said = refusal(capsys, "--model.teacher=none", "--config", str(tmp_path / "mine.yaml"))
    assert said.startswith(
        "error: model: has more than init_args beside class_path ({'class_path': 'pl_distill.modules."
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "fit",
            "pl-distill fit: has no data and no model, expected a recipe, such as --config distill/pen.yaml --config",
        ),
        (
            "predict",
            "pl-distill predict: has no data and no model, expected a recipe, such as --config cache/pen.yaml.",
        ),
        ("fit --config", "--config: stands without a value, expected one behind it. See `pl-distill fit --help`."),
        ("export --model a", "pl-distill export: lacks --out, expected every option that has no default."),
        (
            "export --model a --out b --precision bf61",
            "--precision: is 'bf61', expected one of fp32, fp16, int8, int8-st",
        ),
        ("track a --model b --out c --max_frames many", "--max_frames: is 'many', expected a whole number. See"),
        (
            "track a --model b --out c --policy.appearance.needed x",
            "--policy.appearance.needed: is 'x', expected a whole",
        ),
        (
            "track a --model b --out c --policy.max_objcts 3",
            "pl-distill track: unrecognized arguments: --policy.max_objcts",
        ),
        ("data", "pl-distill data: stands alone, expected one of pen, shards, verify, split."),
        ("data pan", "pl-distill data: knows no 'pan', expected one of pen, shards, verify, split."),
        ("data pen", "pl-distill data pen: lacks --out, expected every option that has no default."),
        ("data pen --out", "--out: stands without a value, expected one behind it. See `pl-distill data pen --help`."),
    ],
)
def test_a_refusal_says_which_option_and_what_it_wants(words, said, capsys):
    assert main(words.split()) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {said}")


def test_an_unknown_option_is_told_the_nearest_one_and_no_password_is_repeated(capsys):
    assert main(["track", "--vidoe", "rtsp://user:SECRET@host/x"]) == 1
    assert capsys.readouterr().err == (
        "error: pl-distill track: unrecognized arguments: --vidoe rtsp://host/x, expected arguments that the command "
        "knows. Is --video meant? See `pl-distill track --help`.\n"
    )
    for words in (
        ["--model", "m", "--out", "o", "rtsp://user:SECRET@host/x"],
        ["--max_frames=rtsp://user:SECRET@host/x"],
    ):
        assert main(["track", "a.mp4", *words]) == 1
        assert "SECRET" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("model:\n  a: [1,\n  b: 2\n", r"is no YAML \(line 4: "),
        ("just text", "holds no keys"),
        ("- a\n", "holds no keys"),
    ],
)
def test_a_recipe_that_is_no_mapping_is_refused_by_its_name(tmp_path, text, found):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/mine\.yaml: {found}"):
        find_recipe(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("finetune/detectr.yaml", "a path or one of finetune/detector.yaml, finetune/tracker.yaml. Check the name."),
        ("configs/finetune/x.yaml", "a path or one of finetune/detector.yaml, finetune/tracker.yaml. Check the name."),
        ("distil/pen.yaml", "a path or one of distill/pen.yaml, distill/pen_dual.yaml"),
        ("zzz", "a path or one of the folders behaviour, cache, distill, "),
    ],
)
def test_a_recipe_that_is_not_there_is_told_those_that_may_be_meant(name, known):
    with pytest.raises(ConfigError) as caught:
        find_recipe(name)
    assert f"is no file here and no shipped recipe, expected {known}" in str(caught.value)


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
