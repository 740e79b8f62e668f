"""Processes that do not outlive the one that started them: whoever is killed would leave them to write on."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
if sys.platform == "linux":
    # Looked up here: a lock that another thread held at a fork stays locked in the new process, the loader's, too.
    _prctl = ctypes.CDLL(None).prctl


def die_with_parent(parent: int) -> None:
    """Ask the kernel, of Linux alone, for a kill when the parent dies; called in the new process.

    Args:
        parent: Its process number.
    """
    if sys.platform != "linux":
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)
