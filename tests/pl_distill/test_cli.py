"""The first word chooses a verb; exit codes tell a script what happened."""

import errno
import subprocess
import sys

import pytest

from datamodules.errors import UserError
from pl_distill import __version__, cli


def raising(error):
    def run(words):
        raise error

    return run


def test_help_lists_every_verb_without_importing_torch():
    code = "import sys; from pl_distill.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0
    for verb in cli.VERBS:
        assert f"  {verb} " in finished.stdout


def test_version_is_that_of_the_package(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_an_error_of_the_user_is_one_line_and_1(monkeypatch, capsys):
    monkeypatch.setattr(cli, "run", raising(UserError("a.mp4", "is empty", "a video", "Copy it again.")))
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().err == "error: a.mp4: is empty, expected a video. Copy it again.\n"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--policy.appearance.needed=20", "appearance.needed: is 20, expected at most recent (8)"),
        ("--policy.retirement.hidden_frames=-1", "retirement.hidden_frames: is -1, expected at least 0"),
        ("--policy.max_objects=0", "policy.max_objects: is 0, expected at least 1"),
    ],
)
def test_a_value_that_cannot_be_is_one_line_also_where_the_option_is_optional(option, message, capsys):
    assert cli.main(["track", "pen.mp4", "--model=pen_teacher", "--out=nowhere", option]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_debug_lets_an_error_of_the_user_through(monkeypatch):
    monkeypatch.setattr(cli, "run", raising(UserError("a.mp4", "is empty", "a video", "Copy it again.")))
    with pytest.raises(UserError):
        cli.main(["demo", "--debug"])


@pytest.mark.parametrize(
    "refusal",
    [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.ENOTDIR, "Not a directory", "out/a")],
)
def test_what_the_disk_refuses_is_one_line_and_1(monkeypatch, capsys, refusal):
    monkeypatch.setattr(cli, "run", raising(refusal))
    assert cli.main(["demo"]) == 1
    where = refusal.filename or "the disk"
    assert capsys.readouterr().err.startswith(f"error: {where}: is refused by the system ({refusal.strerror}), exp")
    with pytest.raises(OSError, match=refusal.strerror):
        cli.main(["demo", "--debug"])


def test_another_error_of_the_system_is_a_defect_of_ours(monkeypatch):
    monkeypatch.setattr(cli, "run", raising(FileNotFoundError(errno.ENOENT, "No such file", "a")))
    with pytest.raises(FileNotFoundError):
        cli.main(["demo"])


def caused_by_a_refusal():
    error = ValueError("ours")
    error.__cause__ = UserError("where", "found", "expected", "fix")
    return error


@pytest.mark.parametrize("error", [ZeroDivisionError(), ValueError("ours"), caused_by_a_refusal()])
def test_a_defect_of_ours_is_never_hidden(monkeypatch, error):
    monkeypatch.setattr(cli, "run", raising(error))
    with pytest.raises(type(error)):
        cli.main(["demo"])


def test_ctrl_c_is_130_also_where_lightning_made_an_exit_of_it(monkeypatch, capsys):
    monkeypatch.setattr(cli, "run", raising(KeyboardInterrupt()))
    assert cli.main(["demo"]) == 130
    assert "--ckpt_path" not in capsys.readouterr().err

    def as_lightning(words):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    monkeypatch.setattr(cli, "run", as_lightning)
    assert cli.main(["fit"]) == 130
    assert "run the same command again with --ckpt_path last to go on" in capsys.readouterr().err


def test_any_other_exit_keeps_its_code(monkeypatch):
    monkeypatch.setattr(cli, "run", raising(SystemExit(3)))
    with pytest.raises(SystemExit) as caught:
        cli.main(["fit"])
    assert caught.value.code == 3


def pages_of(verb):
    """The words that have help: the verb's and, of a group, each function's."""
    functions = cli.VERBS[verb].functions
    return [[verb]] if functions in ((), (verb,)) else [[verb], *([verb, name] for name in functions)]


@pytest.mark.parametrize("words", [words for verb in cli.VERBS for words in pages_of(verb)], ids="-".join)
def test_every_verb_has_help_with_an_example(words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--help"])
    assert caught.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    functions = cli.VERBS[words[0]].functions
    examples = [[*words, name] for name in functions] if len(words) == 1 and len(functions) > 1 else [words]
    for example in examples:
        assert f"pl-distill {' '.join(example)} " in printed.partition("Example")[2], printed
