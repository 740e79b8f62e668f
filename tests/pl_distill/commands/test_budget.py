"""`pl-distill budget` on a small SAM 3."""

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml

from pl_distill.cli import main
from pl_distill.commands import budget as command
from pl_distill.deploy.budget import STUDENT, Budget, predict
from pl_distill.deploy.budget_text import format_budget
from pl_distill.deploy.envelope import Envelope, load_envelope
from pl_distill.deploy.recipe import read_recipe
from pl_distill.evaluation.tables import read_report_tables

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
    "data": {"init_args": {"batch_size": 16}},  # of two, measuring the terms in float32 takes most
}  # fmt: skip


TOY = {
    "name": "Toy", "memory_gib": 1, "reserve_gib": {"all": 0.99}, "half_tflops": 1.0,
    "float_tflops": 1.0, "bandwidth_gb_s": 1.0, "sources": [],
}  # fmt: skip


def run(recipe, *options):
    return main(["budget", "--recipe", str(recipe), "--animals=1", "--frames=3", "--precisions=[fp16]", *options])


@dataclass
class Run:
    """One run of the command: exit code, what it printed, and what it had found."""

    code: int
    out: str
    err: str
    found: Budget
    envelopes: dict[str, Envelope]
    folder: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    folder, found = tmp_path_factory.mktemp("budget"), []
    for name, content in (("tiny", TINY), ("toy", TOY)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    def keep(*arguments, **options):
        found.append(predict(*arguments, **options))
        return found[0]

    out, err = StringIO(), StringIO()
    with patch.object(command, "predict", keep), redirect_stdout(out), redirect_stderr(err):
        where = (f"--device={folder / 'toy.yaml'}", f"--out={folder / 'out'}")
        code = run(folder / "tiny.yaml", "--json=true", "--gpus=4", "--limit=fail", *where)
    return Run(
        code, out.getvalue(), err.getvalue(), found[0], {"toy": load_envelope(folder / "toy.yaml")}, folder / "out"
    )


def test_json_has_every_system_and_its_parts_add_up(finished):
    content = json.loads(finished.out)
    systems = {one["system"]: one for one in content["memory"]}
    assert len(systems) == 3
    for one in systems.values():
        assert sum(one["parts_bytes"].values()) == one["peak_bytes"] > one["weights_bytes"]
    stock, teacher, student = systems.values()
    assert stock["weights_bytes"] > teacher["weights_bytes"] > 0 < student["weights_bytes"]
    assert stock["session_bytes"] > teacher["session_bytes"] == student["session_bytes"]
    assert content["training"]["peak_bytes"]["32-true"] > content["training"]["peak_bytes"]["bf16-mixed"] > 0


def test_a_student_that_does_not_fit_fails_where_it_shall(finished):
    assert finished.code == 1
    assert "error: Toy: would have to hold" in finished.err
    assert "Shrink the weights first" in finished.err


def test_the_report_finds_the_table_and_programs_the_same_json(finished):
    assert json.loads((finished.folder / "budget.json").read_text()) == json.loads(finished.out)
    (table,) = read_report_tables([finished.folder])
    peak = next(row for row in table.rows if row[0] == "PEAK with embedder")
    assert peak[-1] == f"{finished.found.of(STUDENT, 'fp16').peak_bytes / 2**30:.3f}"
    assert len(table.columns) == len(peak)


def test_the_tables_say_the_same(finished):
    text = format_budget(finished.found, finished.envelopes)
    student = finished.found.of(STUDENT, "fp16")
    (peak,) = [line for line in text.splitlines() if line.startswith("PEAK with embedder")]
    assert peak.split()[-1] == f"{student.peak_bytes / 2**30:.3f}"
    assert "training step, batch 16 a GPU" in text
    (divided,) = [line for line in text.splitlines() if line.startswith("each of 4 GPUs, ZeRO-2")]
    assert divided.split()[-1] == f"{finished.found.each_gpu_bytes['ZeRO-2'] / 2**30:.3f}"
    assert "Toy: needs" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"class_path": "lightning.pytorch.LightningModule"}}, "distils no student"),
        ({"model": {**TINY["model"], "init_args": {"student": None}}}, "names no teacher"),
        ({"model": {**TINY["model"], "init_args": {"teacher": "tiny", "studnet": 1}}}, "studnet"),
        ({"model": {**TINY["model"], "init_args": None}}, "names no teacher"),
        ({"model": {**TINY["model"], "init_args": "tiny"}}, "model.init_args: is 'tiny', expected keys and values"),
        ({"data": "datamodules.Data"}, "data: is 'datamodules.Data', expected keys and values"),
        ({"data": {"init_args": [8]}}, "data.init_args: is [8], expected keys and values"),
        ({"data": {"init_args": {"batch_size": "auto"}}}, "batch_size: is 'auto', expected a whole number from 1 on"),
        ({"data": {"init_args": {"batch_size": None}}}, "batch_size: is None, expected a whole number from 1 on"),
        ({"data": {"init_args": {"batch_size": 0}}}, "batch_size: is 0, expected a whole number from 1 on"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, capsys, change, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(TINY | change), encoding="utf-8")
    assert run(path) == 1
    assert message in capsys.readouterr().err


def test_gpus_without_a_training_are_refused(tmp_path, capsys):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    assert run(path, "--training=false", "--gpus=4") == 1
    assert "--gpus: is given with --training false" in capsys.readouterr().err


@pytest.mark.parametrize("data", [None, {"init_args": None}])
def test_a_recipe_that_leaves_its_data_open_counts_one_image(tmp_path, data):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(TINY | {"data": data}), encoding="utf-8")
    assert read_recipe(path).batch_size == 1


def test_numbers_out_of_range_are_refused(capsys):
    assert run("distill/pen.yaml", "--frames=1") == 1
    assert "--frames: is 1, expected at least 2" in capsys.readouterr().err
