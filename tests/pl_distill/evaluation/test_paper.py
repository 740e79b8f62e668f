"""Beside the paper's figures stand those of the same part of the system."""

from dataclasses import replace

import pytest

from pl_distill.evaluation.paper import paper_rows
from pl_distill.evaluation.real_size import count_real_size
from pl_distill.evaluation.results import read_results
from tests.pl_distill.evaluation.reporting import make


@pytest.mark.parametrize(("kind", "part"), [("sam3", "teacher"), ("TinyViTFPN", "student")])
def test_a_sam3_alone_is_the_teacher_and_a_bundle_the_student(tmp_path, kind, part):
    results = read_results(make(tmp_path, roles=("model",)))
    (model,) = results.models.values()
    only = replace(model, model=replace(model.model, kind=kind))
    rows = {row.quantity: row.here for row in paper_rows(replace(results, models={"model": only}), count_real_size())}
    other = "student" if part == "teacher" else "teacher"
    assert rows[f"MOTA %, {part}"] == f"{model.overall.mota:.2f}"
    assert (rows[f"MOTA %, {other}"], rows["MOTA, points lost by the student"]) == ("-", "-")
    assert (rows["parameters of the trunk"] == "-") == (part == "student")
    assert (rows["parameters, both necks included"] == "-") == (part == "teacher")
