import logging

import pytest

from pl_distill.evaluation.event_log import events_to


def test_events_go_to_the_file_and_warnings_to_the_terminal_too(tmp_path, capsys):
    ours, others = logging.getLogger("pl_distill.somewhere"), logging.getLogger("other")
    with events_to(tmp_path / "events.log"):
        ours.info("track %d ends", 3)
        ours.warning("the picture is blank")
        ours.debug("not of interest")
        others.warning("not ours")
    ours.warning("after the run")
    lines = (tmp_path / "events.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["INFO track 3 ends", "WARNING the picture is blank"]
    said = capsys.readouterr().err
    assert said.count("the picture is blank") == 1
    assert "track 3 ends" not in said


def test_logging_is_as_before_also_after_an_error(tmp_path):
    loggers = [logging.getLogger(name) for name in ("pl_distill", "datamodules")]
    before = [(one.level, list(one.handlers)) for one in loggers]
    with pytest.raises(KeyError), events_to(tmp_path / "events.log"):
        raise KeyError
    assert [(one.level, list(one.handlers)) for one in loggers] == before


def test_an_event_is_on_disk_at_once(tmp_path):
    with events_to(tmp_path / "events.log"):
        logging.getLogger("datamodules.live").warning("the stream broke off")
        assert "broke off" in (tmp_path / "events.log").read_text()
