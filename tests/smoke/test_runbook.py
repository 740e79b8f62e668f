"""Every command of the runbook, and of the page on a farm of your own, names a verb, recipes and options that exist."""

import re
import shlex
from pathlib import Path

import pytest

from pl_distill.cli import VERBS, main
from pl_distill.commands.lightning import RecipeCLI, run_lightning
from pl_distill.commands.parsing import find_recipe

DOCS = Path(__file__).resolve().parents[2] / "docs"
RUNBOOK = (DOCS / "runbook.md").read_text(encoding="utf-8")
OWN_FARM = (DOCS / "own-farm.md").read_text(encoding="utf-8")
COMMANDS = [line for line in RUNBOOK.splitlines() if line.startswith("pl-distill ")]
OWN_COMMANDS = [line for line in OWN_FARM.splitlines() if line.startswith("pl-distill ")]
RECIPES = sorted(set(re.findall(r"`([\w-]+/[\w/-]+\.yaml)`", RUNBOOK + OWN_FARM)))


@pytest.mark.parametrize("command", [*COMMANDS, *(command for command in OWN_COMMANDS if command not in COMMANDS)])
def test_a_command_can_be_given(command, capsys, monkeypatch):
    _, verb, *words = shlex.split(command)
    recipes = [words[number + 1] for number, word in enumerate(words) if word in ("--config", "--recipe", "--trainer")]
    assert all(Path(find_recipe(recipe)).is_file() for recipe in recipes)
    if verb in ("fit", "validate", "predict"):
        monkeypatch.setattr(RecipeCLI, "_run_subcommand", lambda *_: None)
        monkeypatch.setattr(RecipeCLI, "instantiate_trainer", lambda *_: None)  # one for GPUs refuses without one
        run_lightning([verb, *words])  # an option that a recipe's classes do not have is refused
        return
    chosen = [words[0]] if len(VERBS[verb].functions) > 1 else []
    with pytest.raises(SystemExit):
        main([verb, *chosen, "--help"])
    text = capsys.readouterr().out
    assert all(f"{word} " in text for word in words if word.startswith("--"))


def test_the_runbook_goes_from_weights_to_the_table():
    verbs = [command.split()[1] for command in COMMANDS]
    expected = ["data", "predict", "cache", "fit", "evaluate", "report", "ablate", "embed", "validate"]
    assert list(dict.fromkeys(verbs)) == expected


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_shipped(recipe):
    assert Path(find_recipe(recipe)).is_file()
