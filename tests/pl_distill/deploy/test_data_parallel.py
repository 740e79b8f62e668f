"""What each GPU holds, against sums by hand."""

from pathlib import Path

import pytest
import yaml

from pl_distill.deploy.data_parallel import REDUCE_BUCKET, StepMemory, each_gpu_holds

BUCKET = 4 * REDUCE_BUCKET


def test_moments_and_gradients_are_divided_and_buffers_are_added():
    # 80 of weights, 160 of moments, 80 of gradients, of which the peak has 60, and 500 of activations
    step = StepMemory(peak_bytes=800, divided_gradients_bytes=755, weights_bytes=80, states=2)
    found = each_gpu_holds(step, 4)
    assert list(found) == ["ddp", "ZeRO-1", "ZeRO-2", "ZeRO-3"]
    assert found["ddp"] == 800 + 80
    assert found["ZeRO-1"] == 800 - 120 + 20 + 2 * BUCKET
    assert found["ZeRO-2"] == 755 - 120 + 20 + 2 * BUCKET
    assert found["ZeRO-3"] == 755 - 120 + 40 + BUCKET


@pytest.mark.parametrize("stage", [2, 3])
def test_the_bucket_is_that_of_the_recipes(stage):
    path = Path(__file__).parents[3] / "configs" / "trainer" / f"deepspeed_stage{stage}.yaml"
    arguments = yaml.safe_load(path.read_text(encoding="utf-8"))["trainer"]["strategy"]["init_args"]
    assert arguments["reduce_bucket_size"] == REDUCE_BUCKET
