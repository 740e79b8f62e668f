"""The commands of the README, word for word, at a size that takes seconds."""

import re
import shlex
from pathlib import Path

import pytest

from pl_distill.cli import main

pytestmark = pytest.mark.smoke

README = Path(__file__).resolve().parents[2] / "README.md"
SHORTER = {  # a later option wins over the README's
    "data pen": ["--frames_per_clip=6", "--days=2026_01_01,2026_01_21,2026_01_26"],
    "predict": ["--data.num_workers=0"],
    "fit": ["--trainer.max_steps=4", "--trainer.val_check_interval=2", "--data.num_workers=0", "--data.batch_size=4"],
    "evaluate": ["--max_frames=3"],
    "track": ["--max_frames=3"],
}


def commands() -> list[list[str]]:
    (block,) = [block for block in re.findall(r"```\n(.*?)```", README.read_text(), re.S) if "pl-distill fit" in block]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def test_the_recipes_of_the_readme_run_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verbs = []
    for program, *words in commands():
        assert program == "pl-distill"
        verb = next((name for name in SHORTER if " ".join(words).startswith(name)), words[0])
        verbs.append(verb)
        assert main([*words, *SHORTER.get(verb, [])]) == 0, words
    assert verbs == ["data pen", "data", "predict", "fit", "evaluate", "report", "track"]
    assert (tmp_path / "scores" / "report.html").is_file()
    assert list((tmp_path / "tracks").rglob("*.mp4"))


def test_every_file_that_the_readme_links_to_exists():
    root = README.parent
    for name in re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text()):
        assert (root / name).is_file(), name
