"""A SAM 3 with random weights in the pen's size, its student, and what torch's CPU allocator says."""

from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pl_distill.commands.parsing import find_recipe
from pl_distill.deploy.recipe import read_recipe


def allocated_peak(action: Callable[[], object]) -> int:
    """The most bytes that torch's CPU allocator had given out during `action`, by its own records."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


@pytest.fixture(scope="session")
def measure():
    return allocated_peak


@pytest.fixture(scope="session")
def recipe():
    torch.manual_seed(0)
    return read_recipe(find_recipe("distill/pen.yaml"), "pen")
