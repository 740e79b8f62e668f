"""Run one of our verbs in a process of its own, so that it may start others and gives its memory back."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial

from pl_distill.errors import ConfigError
from pl_distill.evaluation.memory import maximum_rss_bytes

PR_SET_PDEATHSIG = 1  # linux/prctl.h
if sys.platform == "linux":
    # Looked up here: a lock that another thread held at the fork stays locked in the new process, the loader's, too.
    _prctl = ctypes.CDLL(None).prctl


def run_apart(words: Sequence[str]) -> int:
    """Run `pl-distill WORDS` and wait for it; on Linux it does not outlive this process.

    Returns:
        The largest resident set of it, or of a process that it started and waited for, in bytes.

    Raises:
        ConfigError: It failed; what went wrong it has said itself.
    """
    die_with_us = partial(_die_with_parent, os.getpid()) if sys.platform == "linux" else None
    command = [sys.executable, "-m", "pl_distill.cli", *words]
    process = subprocess.Popen(command, preexec_fn=die_with_us)
    try:
        _, status, usage = os.wait4(process.pid, 0)  # as `wait`, and tells what it used
    except BaseException:  # Ctrl-C reaches the other process, too: let it end in its own way
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        found = f"ended with code {process.returncode}"
        raise ConfigError(f"pl-distill {words[0]}", found, "0", "Its own message is above.")
    return maximum_rss_bytes(usage)


def _die_with_parent(parent: int) -> None:
    """Ask the kernel for a kill when the parent dies; between fork and exec.

    Args:
        parent: Its process number.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)
