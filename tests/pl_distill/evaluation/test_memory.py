"""Peaks that start anew, on Linux; elsewhere the peak is that of the whole process."""

import sys

import numpy as np
import pytest
import torch

from pl_distill.evaluation.memory import PhaseMeter, held_bytes, peak_rss_bytes, release_memory, reset_peaks, rss_bytes

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_peak_is_seen_after_the_memory_is_gone_and_forgotten_by_a_reset():
    resettable = reset_peaks()
    before = peak_rss_bytes()
    block = np.ones(64 * MIB, np.uint8)
    assert rss_bytes() > before
    del block
    release_memory()
    assert peak_rss_bytes() >= before + 60 * MIB
    assert rss_bytes() < peak_rss_bytes() - 30 * MIB
    if resettable:
        reset_peaks()
        assert peak_rss_bytes() < before + 40 * MIB


def test_the_peak_is_never_below_the_present():
    assert peak_rss_bytes() >= (rss_bytes() or 0) * 0.99  # the kernel batches its counters


def test_a_phase_on_a_gpu_is_measured_on_that_gpu(monkeypatch):
    taken = {0: (1, 2), 1: (10, 20)}  # allocated and reserved bytes of two devices

    def forget(device):
        taken[device.index] = (0, 0)

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: taken[device.index][0])
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: taken[device.index][1])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forget)
    meter, second = PhaseMeter(), torch.device("cuda", 1)
    meter.enter("streaming", second)
    assert taken == {0: (1, 2), 1: (0, 0)}
    for allocated in (30, 20):
        taken[1] = (allocated, 40)
        meter.note(second)
    assert meter.peaks_bytes == {"streaming": {"allocated": 30, "reserved": 40}}


def test_a_phase_on_a_cpu_is_the_resident_set():
    meter = PhaseMeter()
    meter.note(torch.device("cpu"))
    assert meter.peaks_bytes == {}  # before any phase
    meter.enter("streaming", torch.device("cpu"))
    meter.enter(None, torch.device("cpu"))
    assert list(meter.peaks_bytes["streaming"]) == ["rss"]


def test_a_gpu_has_to_hold_what_the_allocator_keeps():
    assert held_bytes({"allocated": 3, "reserved": 5}) == 5
    assert held_bytes({"rss": 4}) == 4
