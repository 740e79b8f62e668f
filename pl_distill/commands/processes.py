"""Run one of our verbs in a process of its own, so that it may start others and gives its memory back."""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial

from datamodules.processes import die_with_parent
from pl_distill.errors import ConfigError
from pl_distill.evaluation.memory import maximum_rss_bytes


def run_apart(words: Sequence[str]) -> int:
    """Run `pl-distill WORDS` and wait for it; on Linux it does not outlive this process.

    Returns:
        The largest resident set of it, or of a process that it started and waited for, in bytes.

    Raises:
        ConfigError: It failed; what went wrong it has said itself.
    """
    die_with_us = partial(die_with_parent, os.getpid()) if sys.platform == "linux" else None
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
