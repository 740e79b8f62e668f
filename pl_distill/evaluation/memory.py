"""How much memory a replay takes: the process's resident set now, and its peak since a moment that we choose.

Source: Linux, Documentation/filesystems/proc.rst: VmHWM and VmRSS in /proc/self/status; writing 5 to
/proc/self/clear_refs lowers VmHWM to the present value. Elsewhere, or where that file may not be written, the peak is
that of the process since its start.
"""

import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peaks() -> bool:
    """Start measuring the peaks anew; False where the system does not allow that for the resident set."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def release_memory() -> None:
    """Give what is no longer referenced back to the system, so that the next model is not charged for the last one."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other C libraries have none
    if trim is not None:
        trim(0)


def peak_vram_bytes() -> int | None:
    """Return the most that was allocated on the GPU since the last reset; None without a GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def peak_rss_bytes() -> int:
    """Return the largest resident set since the last reset, or since the process started."""
    measured = _status_bytes("VmHWM")
    if measured is not None:
        return measured
    return maximum_rss_bytes(resource.getrusage(resource.RUSAGE_SELF))


def maximum_rss_bytes(usage: resource.struct_rusage) -> int:
    """Return the largest resident set that the system has noted."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # bytes on macOS, KiB on Linux


def rss_bytes() -> int | None:
    """Return the resident set of this moment; None where the system does not tell."""
    return _status_bytes("VmRSS")


def _status_bytes(key: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    value = next((line.split()[1] for line in lines if line.startswith(f"{key}:")), None)
    return None if value is None else int(value) * 1024
