import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from pl_distill.models.sam3 import read_sam3_sha256, read_trunk_sha256, write_random_sam3


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_random_sam3("tiny", tmp_path_factory.mktemp("sam3") / "tiny", seed=0)


@pytest.fixture
def copy(teacher, tmp_path):
    return shutil.copytree(teacher, tmp_path / "copy")


def test_a_copy_is_the_same_model(teacher, copy):
    assert read_sam3_sha256(copy) == read_sam3_sha256(teacher)


def test_another_tracker_on_the_same_trunk_is_another_model(teacher, copy):
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in sorted(weights) if name.startswith("tracker_model.") and weights[name].numel() > 1)
    weights[name] = weights[name] + 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert read_trunk_sha256(copy) == read_trunk_sha256(teacher)
    assert read_sam3_sha256(copy) != read_sam3_sha256(teacher)


def test_another_threshold_is_another_model(teacher, copy):
    config = json.loads((copy / "config.json").read_text())
    config["new_det_thresh"] += 0.1
    (copy / "config.json").write_text(json.dumps(config))
    assert read_sam3_sha256(copy) != read_sam3_sha256(teacher)


def test_another_prompt_is_another_model(teacher, copy):
    prompts = load_file(copy / "prompts.safetensors")
    save_file({name: tensor + 1 for name, tensor in prompts.items()}, copy / "prompts.safetensors")
    assert read_sam3_sha256(copy) != read_sam3_sha256(teacher)
