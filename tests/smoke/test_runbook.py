"""Every command line of the documents is one that its verb takes, with options, values and quotes."""

import functools
import re
import shlex
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

from pl_distill.cli import VERBS, main
from pl_distill.commands.lightning import RecipeCLI
from pl_distill.commands.parsing import find_recipe

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = ROOT / "docs/runbook.md"
DOCUMENTS = [ROOT / "README.md", ROOT / "slurm/README.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_A_RUN = {"runs/behaviour/head/config.yaml": "behaviour/pen.yaml"}  # which a fit before has written
NEEDS = {"behaviour/pen.yaml": ["--data.features=features"]}  # what is in it besides


def commands(document):
    """Lines that begin with the command; loops and mentions in a sentence do not."""
    return [line for line in document.read_text(encoding="utf-8").splitlines() if line.startswith("pl-distill ")]


COMMANDS = [(document.stem, command) for document in DOCUMENTS for command in commands(document)]
PAGES = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
RECIPES = sorted(set(re.findall(r"`([\w-]+/[\w/-]+\.yaml)`", PAGES)))


@pytest.fixture
def taken(monkeypatch):
    """What the verbs were asked for; each takes its arguments as it does, and then does nothing."""
    called = []
    monkeypatch.setattr(RecipeCLI, "instantiate_trainer", lambda *_: None)  # one for GPUs refuses without one
    monkeypatch.setattr(RecipeCLI, "_run_subcommand", lambda _, verb: called.append(verb))
    for verb in VERBS.values():
        for name in verb.functions:
            module = import_module(f"pl_distill.commands.{verb.module}")
            function = getattr(module, name)
            stub = functools.wraps(function)(lambda *_, name=name, **__: called.append(name))
            monkeypatch.setattr(module, name, stub)
    return called


def words_of(command):
    """Split a command as a shell does; the configuration that a run has saved is that of its recipe."""
    _, *words = shlex.split(command, comments=True)
    more = [need for word in words if word in OF_A_RUN for need in NEEDS[OF_A_RUN[word]]]
    return [OF_A_RUN.get(word, word) for word in words] + more


@pytest.mark.parametrize(("document", "command"), COMMANDS, ids=lambda text: text[:60])
def test_a_command_of_the_documents_can_be_given(document, command, taken, capsys):
    words = words_of(command)
    for option, value in pairwise(words):
        if option in ("--config", "--recipe", "--trainer", "--card"):
            assert Path(find_recipe(value)).is_file()
    code = main(words)
    assert code == 0, capsys.readouterr().err
    assert taken in ([words[0]], [words[1]])


@pytest.mark.parametrize(
    "command",
    [
        "pl-distill export --model STUDENT --out student.onnx --precision bf16",
        "pl-distill export --model STUDENT --precision fp16",
        "pl-distill ablate --teacher a --shards b --cache c --out d --caches '{\"int8\": }'",
        "pl-distill fit --config distill/pen.yaml --config trainer/cpu.yaml --data.shards shards",
        "pl-distill fit --config distill/pen.yaml --model.teacher a --data.shards shards --data.batch_size=0",
        "pl-distill track pen.mp4 --model STUDENT --out runs/pen --policy.max_objects=0",
    ],
)
def test_wrong_values_missing_options_and_wrong_quotes_would_be_noticed(command, taken):
    assert main(words_of(command)) == 1
    assert not taken


def test_the_runbook_goes_from_weights_to_the_table():
    verbs = [command.split()[1] for command in commands(RUNBOOK)]
    expected = ["data", "predict", "cache", "fit", "evaluate", "report", "ablate", "embed", "validate"]
    assert list(dict.fromkeys(verbs)) == expected


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_shipped(recipe):
    assert Path(find_recipe(recipe)).is_file()
