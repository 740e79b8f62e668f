"""How much memory a phase takes: the process's resident set now, and its peaks since a moment that we choose.

Source: Linux, Documentation/filesystems/proc.rst: VmHWM and VmRSS in /proc/self/status; writing 5 to
/proc/self/clear_refs lowers VmHWM to the present value. Elsewhere, or where that file may not be written, the peak is
that of the process since its start.
"""

import ctypes
import gc
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


STREAMING = "streaming"
"""The phase of a tracker that runs over a clip or a camera's frames."""


class PhaseMeter:
    """The peaks of this process by phase, each measured from its own beginning.

    On a GPU `allocated` (bytes of tensors) and `reserved` (what the allocator holds); elsewhere `rss`, the resident set
    of the process, which is never called VRAM.

    Attributes:
        peaks_bytes: The largest so far, by phase and quantity.
        phase: The one that is being measured; None between phases.
    """

    def __init__(self) -> None:
        self.peaks_bytes: dict[str, dict[str, int]] = {}
        self.phase: str | None = None

    def enter(self, phase: str | None, device: torch.device) -> None:
        """Note what the phase before has taken, and begin to measure anew."""
        self.note(device)
        self.phase = phase
        reset_peaks(device)

    def note(self, device: torch.device) -> None:
        """Take the present phase's peaks so far."""
        if self.phase is None:
            return
        peaks = self.peaks_bytes.setdefault(self.phase, {})
        for name, value in read_peaks(device).items():
            peaks[name] = max(peaks.get(name, 0), value)


def held_bytes(peaks: Mapping[str, int]) -> int:
    """Return what a device had to give for the peaks of one phase: `reserved` on a GPU, elsewhere `rss`."""
    return peaks["reserved"] if "reserved" in peaks else peaks["rss"]


def read_peaks(device: torch.device) -> dict[str, int]:
    """Return the peaks since the last reset, by the names of `PhaseMeter`."""
    if device.type == "cuda":
        return {
            "allocated": torch.cuda.max_memory_allocated(device),
            "reserved": torch.cuda.max_memory_reserved(device),
        }
    return {"rss": peak_rss_bytes()}


def reset_peaks(device: torch.device | None = None) -> bool:
    """Start measuring the peaks anew.

    Args:
        device: Whose statistics start anew beside the resident set's, where it is a GPU.

    Returns:
        False where the system does not allow it for the resident set.
    """
    if device is not None and device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
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
