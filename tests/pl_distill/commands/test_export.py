"""`pl-distill export`: the graph gives what the network gives, or is not written."""

import pytest
import torch
from torch import nn

from pl_distill.cli import main
from pl_distill.deploy import export as onnx_export
from pl_distill.deploy.export import OutputParity, ParityError, check_parity, compare, write_onnx
from pl_distill.models.sam3 import write_random_sam3
from tests.pl_distill.commands.test_package import make_student

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    teacher = write_random_sam3("tiny", folder / "teacher", seed=0)
    return make_student("necks", teacher, folder / "student")


@pytest.mark.parametrize(("precision", "cosine"), [("fp32", 0.99999), ("fp16", 0.999), ("int8", 0.5)])
def test_an_exported_student_gives_its_levels_and_masks(student, tmp_path, capsys, precision, cosine):
    path = tmp_path / "student.onnx"
    arguments = ["export", "--model", str(student), "--out", str(path), "--precision", precision, "--frames=2"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith(("detector", "tracker"))}
    assert set(rows) == set(onnx_export.LEVEL_NAMES)
    assert all(float(row[2]) >= cosine for row in rows.values())
    assert "index tables int64" not in text
    assert [entry.name for entry in tmp_path.iterdir()] == ["student.onnx"]


def test_a_graph_that_disagrees_is_not_written(student, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(onnx_export.LEAST_COSINE, "int8", 1.1)  # nothing reaches it
    path = tmp_path / "student.onnx"
    arguments = ["export", "--model", str(student), "--out", str(path), "--precision=int8", "--frames=1"]
    assert main(arguments) == 1
    assert "expected at least 1.1 in int8" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([*arguments, "--keep_failing=true"]) == 0
    assert path.is_file()


def test_differences_are_those_of_the_values(tmp_path):
    network = nn.Conv2d(3, 2, 1).eval()
    path = tmp_path / "conv.onnx"
    picture = torch.ones(1, 3, 4, 4)
    write_onnx(network, picture, ["map"], path, "fp32")
    (same,) = compare(network, path, [picture], ["map"])
    assert same.largest_difference < 1e-6
    assert same.cosine == pytest.approx(1)
    with torch.no_grad():
        network.bias += 1
    (other,) = compare(network, path, [picture], ["map"])
    assert other.largest_difference == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("cosine", "masks", "message"),
    [(0.99, 1.0, "gives map with cosine 0.990000"), (float("nan"), 1.0, "cosine nan"), (1.0, 0.98, "mean IoU")],
)
def test_parity_names_what_is_wrong(tmp_path, cosine, masks, message):
    outputs = [OutputParity("fine", 0.0, 0.0, 1.0), OutputParity("map", 0.1, 0.1, cosine)]
    with pytest.raises(ParityError, match=message):
        check_parity(tmp_path / "x.onnx", "fp16", outputs, masks)


def test_good_figures_pass(tmp_path):
    check_parity(tmp_path / "x.onnx", "fp32", [OutputParity("map", 0.0, 0.0, 1.0)], 0.9995)
