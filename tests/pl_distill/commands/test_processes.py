import ctypes
import os
import sys
import time
from pathlib import Path

import pytest

from pl_distill.commands.processes import run_apart
from pl_distill.errors import ConfigError
from tests.python_process import python_process


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_verb_runs_and_tells_its_peak(capfd):
    peak = run_apart(["--version"])
    assert 2**20 < peak < 2**40
    assert capfd.readouterr().out.strip()


def test_a_verb_that_fails_has_said_why(capfd):
    with pytest.raises(ConfigError, match=r"pl-distill sing: ended with code 1, expected 0"):
        run_apart(["sing"])
    assert "knows no verb 'sing'" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")
def test_it_does_not_outlive_a_killed_parent(tmp_path):
    child, pid_file = tmp_path / "child", tmp_path / "pid"
    child.write_text(f"#!/bin/sh\necho $$ > {pid_file}\nexec sleep 60\n")
    child.chmod(0o755)
    words = "from pl_distill.commands.processes import run_apart, sys; sys.executable = sys.argv[1]; run_apart([])"
    with python_process("-c", words, child):
        wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
        pid = int(pid_file.read_text())
        assert is_running(pid)
    wait_until(lambda: not is_running(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")
def test_between_fork_and_exec_nothing_is_loaded(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", None)
    monkeypatch.setattr(sys, "executable", "true")
    assert run_apart([]) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")
def test_it_does_not_start_where_its_parent_has_died_in_the_meantime(monkeypatch):
    monkeypatch.setattr(sys, "executable", "true")
    monkeypatch.setattr(os, "getpid", lambda: 0)  # the new process has another parent
    with pytest.raises(ConfigError, match="ended with code 1"):
        run_apart(["sing"])


DRAW = """
import os, sys, time
from pathlib import Path
from datamodules.pen_training import drawing_processes

if __name__ == "__main__":
    with drawing_processes(2) as pool:
        jobs = [pool.submit(time.sleep, 300) for _ in range(2)]
        while not all(job.running() for job in jobs):
            time.sleep(0.02)
        Path(sys.argv[1]).write_text(" ".join(map(str, pool._processes)))
        jobs[0].result()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")
def test_processes_that_draw_die_with_the_verb_that_started_them(tmp_path):
    """Else they would write on, beside the same command when it is given again."""
    script, told = tmp_path / "draw.py", tmp_path / "told"
    script.write_text(DRAW)
    with python_process(str(script), str(told)):
        wait_until(lambda: told.exists() and told.read_text())
        workers = [int(one) for one in told.read_text().split()]
        assert len(workers) == 2
        assert all(is_running(worker) for worker in workers)
    wait_until(lambda: not any(is_running(worker) for worker in workers))
