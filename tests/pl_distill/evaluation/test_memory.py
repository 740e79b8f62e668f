"""Peaks that start anew, on Linux; elsewhere the peak is that of the whole process."""

import sys

import numpy as np
import pytest

from pl_distill.evaluation.memory import peak_rss_bytes, release_memory, reset_peaks, rss_bytes

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
