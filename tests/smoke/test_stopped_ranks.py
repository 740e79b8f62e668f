"""Two ranks of DDP, stopped at every step; a stand-still kills them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke


def test_two_ranks_that_are_stopped_anywhere_go_on_together(tmp_path):
    script = Path(__file__).with_name("stopped_ranks.py")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1200)
    assert ran.returncode == 0, ran.stdout[-200:] + ran.stderr[-6000:]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for one, other in zip(ranks[0].values(), ranks[1].values(), strict=True):
        assert one["left_at"] == other["left_at"]
    for rank in ranks:
        for place, found in rank.items():
            assert found["seen"], place
            assert found["weights"], place
    left = {place: found["left_at"] for place, found in ranks[0].items()}
    assert [left[f"batch {step}"] for step in range(8)] == list(range(1, 9)), "after the batch in hand"
    assert (left["validation 3"], left["validation 6"]) == (3, 6), "after the validation in hand"
