"""`pl-distill report` from the command line; the page itself is tested in tests/pl_distill/evaluation."""

import pytest

from pl_distill.cli import main


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["report", "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for option in ("--results", "--out", "--logs"):
        assert option in text


def test_results_that_are_not_there_name_the_command_that_makes_them(tmp_path, capsys):
    assert main(["report", "--results", str(tmp_path / "results.json")]) == 1
    assert "Run `pl-distill evaluate` first." in capsys.readouterr().err


def test_results_that_are_damaged_name_the_key_and_leave_no_page(tmp_path, capsys):
    (tmp_path / "results.json").write_text('{"schema": 1, "overall": {}, "clips": {}}')
    assert main(["report", "--results", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "settings: is missing" in message
    assert not (tmp_path / "report.html").exists()
