"""`pl-distill budget` on a small SAM 3."""

import json

import pytest
import yaml

from pl_distill.cli import main

TINY = {
    "model": {
        "class_path": "pl_distill.modules.distillation.DistillationModule",
        "init_args": {
            "teacher": "tiny",
            "student": {
                "class_path": "pl_distill.models.tinyvit_fpn.TinyViTFPN",
                "init_args": {
                    "body": "tiny_vit_5m_224", "embed_dims": [16] * 4, "depths": [1] * 4, "num_heads": [1] * 4,
                    "window_sizes": [2] * 4, "body_size": 64, "fpn_channels": 16, "norm_groups": 4,
                    "pretrained": "tiny_vit_5m_224.dist_in22k_ft_in1k",
                },
            },
        },
    },
    "data": {"init_args": {"batch_size": 2}},
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    return path


def run(recipe, *options):
    return main(["budget", "--recipe", str(recipe), "--animals=1", "--frames=3", "--precisions=[fp16]", *options])


def test_json_has_every_system_and_its_parts_add_up(recipe, capsys):
    assert run(recipe, "--json=true", "--device=all") == 0
    content = json.loads(capsys.readouterr().out)
    systems = {one["system"]: one for one in content["memory"]}
    assert len(systems) == 3
    for one in systems.values():
        assert sum(one["parts_bytes"].values()) == one["peak_bytes"] > one["weights_bytes"]
    stock, teacher, student = systems.values()
    assert stock["weights_bytes"] > teacher["weights_bytes"] > 0 < student["weights_bytes"]
    assert stock["session_bytes"] > teacher["session_bytes"] == student["session_bytes"]
    assert set(content["devices"]) == {
        "agx-orin-32gb", "agx-orin-64gb", "orin-nano-8gb", "orin-nx-16gb", "orin-nx-8gb", "thor",
    }  # fmt: skip
    assert content["training"]["peak_bytes"]["32-true"] > content["training"]["peak_bytes"]["bf16-mixed"] > 0


def test_a_student_that_does_not_fit_fails_where_it_shall(recipe, tmp_path, capsys):
    device = tmp_path / "toy.yaml"
    profile = {
        "name": "Toy", "memory_gib": 1, "storage_gb": None, "reserve_gib": {"all": 0.99}, "half_tflops": 1.0,
        "float_tflops": 1.0, "bandwidth_gb_s": 1.0, "sources": [],
    }  # fmt: skip
    device.write_text(yaml.safe_dump(profile), encoding="utf-8")
    assert run(recipe, f"--device={device}", "--training=false", "--limit=fail") == 1
    out = capsys.readouterr()
    assert "PEAK with embedder" in out.out
    assert "Shrink the weights first" in out.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"class_path": "lightning.pytorch.LightningModule"}}, "distils no student"),
        ({"model": {**TINY["model"], "init_args": {"student": None}}}, "names no teacher"),
        ({"model": {**TINY["model"], "init_args": {"teacher": "tiny", "studnet": 1}}}, "studnet"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, capsys, change, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(TINY | change), encoding="utf-8")
    assert run(path) == 1
    assert message in capsys.readouterr().err


def test_numbers_out_of_range_are_refused(recipe, capsys):
    assert run(recipe, "--frames=1") == 1
    assert "--frames: is 1, expected at least 2" in capsys.readouterr().err
