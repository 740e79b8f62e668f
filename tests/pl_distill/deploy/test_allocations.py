from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional as F

from pl_distill.deploy.allocations import AllocationTracker
from pl_distill.deploy.fused_attention import FusedAttention


def test_the_peak_is_what_was_alive_at_once():
    tracker = AllocationTracker()
    with tracker:
        first = torch.zeros(1000)  # 4,000 bytes
        second = first + 1  # 8,000 alive
        del first
        third = second * 2  # 8,000 again
        del second
    assert (tracker.peak_bytes, tracker.live_bytes) == (8000, 4000)
    del third
    assert tracker.live_bytes == 0


def test_a_view_and_a_tensor_that_is_held_twice_count_once():
    tracker, weight = AllocationTracker(), torch.zeros(10, 10)
    tracker.hold(weight, weight[2:])
    with tracker:
        weight.view(100).t()
    assert tracker.peak_bytes == 400


def test_a_new_phase_begins_with_what_is_alive():
    tracker = AllocationTracker()
    with tracker:
        kept = torch.zeros(250)
        torch.zeros(1000).sum()
        tracker.reset_peak()
    assert tracker.peak_bytes == kept.nbytes


def test_inference_mode_hides_no_temporary():
    """torch hands over `matmul` whole there; the copy of the expanded operand is inside."""
    peaks = []
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            left, right = torch.zeros(4, 3, 5).transpose(0, 1), torch.zeros(5, 6)
            tracker = AllocationTracker()
            with tracker:
                left @ right
        peaks.append(tracker.peak_bytes)
    assert peaks[0] == peaks[1] > 3 * 4 * 6 * 4


def test_cuda_tensors_are_rounded_to_its_blocks():
    with FakeTensorMode():
        tracker = AllocationTracker()
        with tracker:
            torch.zeros(3, device="cuda")
    assert tracker.peak_bytes == 512


def test_torchs_own_tracker_finds_the_same_peak():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.second = nn.Linear(64, 256), nn.LayerNorm(256), nn.Linear(256, 64)

        def forward(self, tokens):
            return tokens + self.second(F.gelu(self.norm(self.first(tokens))))

    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        network, tokens = nn.Sequential(Block(), Block()), torch.zeros(100, 64)
        ours, theirs = AllocationTracker(), MemTracker()
        ours.hold(network, tokens)
        theirs.track_external(network, tokens)
        with ours:
            network(tokens)
        with theirs:
            network(tokens)
        (snapshot,) = theirs.get_tracker_snapshot("peak").values()
    assert ours.peak_bytes == snapshot["Total"]


@pytest.mark.parametrize("masked", [False, True])
def test_fused_attention_keeps_no_scores(masked):
    with FakeTensorMode(), torch.device("cuda"), torch.inference_mode():
        query = torch.zeros(1, 8, 2000, 64, dtype=torch.bfloat16)
        mask = torch.zeros(1, 1, 1, 2000, dtype=torch.bool) if masked else None
        peaks = {}
        for fused in (False, True):
            tracker = AllocationTracker()
            tracker.hold(query)
            with FusedAttention() if fused else nullcontext(), tracker:
                F.scaled_dot_product_attention(query, query, query, attn_mask=mask)
            peaks[fused] = tracker.peak_bytes
    scores = 8 * 2000 * 2000 * 2  # of one half-precision matrix
    assert peaks[False] > scores
    assert peaks[True] < 2 * query.nbytes + 100_000
