"""Graphs and what is found out about them, on networks small enough to check by hand."""

from functools import partial

import pytest
import torch
from torch import nn

from pl_distill.deploy.onnx_graph import Exportable, index_bits, open_graph, write_onnx
from pl_distill.deploy.onnx_parity import (
    GraphFile,
    HeadsAgreement,
    OutputParity,
    ParityError,
    check_parity,
    compare,
    same_class,
)
from pl_distill.errors import ConfigError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def exportable(network: nn.Module, any_number: bool = False) -> Exportable:
    return Exportable(network.eval(), ("images",), ("map",), any_number)


def test_differences_are_those_of_the_values(tmp_path):
    what = exportable(nn.Conv2d(3, 2, 1))
    path, picture = tmp_path / "conv.onnx", (torch.ones(1, 3, 4, 4),)
    write_onnx(what, picture, path, "fp32")
    (same,) = compare(what, path, [picture])
    assert same.largest_difference < 1e-6
    assert same.cosine == pytest.approx(1)
    with torch.no_grad():
        what.network.bias += 1
    (other,) = compare(what, path, [picture])
    assert other.largest_difference == pytest.approx(1, abs=1e-5)


def test_the_worst_animal_counts_and_a_wrong_class_is_seen(tmp_path):
    what, path = exportable(nn.Linear(2, 2, bias=False), any_number=True), tmp_path / "linear.onnx"
    with torch.no_grad():
        what.network.weight.copy_(torch.eye(2))
    write_onnx(what, (torch.ones(2, 2),), path, "fp32")
    with torch.no_grad():
        what.network.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    values = (torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0]]),)  # the second is turned round, of three
    (found,) = compare(what, path, [values])
    assert found.cosine == pytest.approx(-1)
    assert same_class(what, path, [values]) == pytest.approx(2 / 3)


def test_static_int8_takes_its_ranges_from_the_calibration(tmp_path):
    what, path = exportable(nn.Conv2d(3, 8, 1, bias=False)), tmp_path / "conv.onnx"
    seen, larger = (torch.rand(1, 3, 8, 8),), (10 * torch.rand(1, 3, 8, 8),)
    write = partial(write_onnx, what, seen, path, "int8-static")
    write(calibration=[seen])
    (inside,), (outside,) = compare(what, path, [seen]), compare(what, path, [larger])
    assert inside.relative_difference < 0.02  # 1 in 127, weights and activations
    assert outside.relative_difference > 0.5  # clipped at what the calibration has shown
    write(calibration=[seen, larger])
    (outside,) = compare(what, path, [larger])
    assert outside.relative_difference < 0.02
    with pytest.raises(ConfigError, match="no inputs to calibrate with"):
        write(calibration=[])


class Shuffle(nn.Module):
    """Takes the pixels of a picture by a table of indices."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4096))
        self.register_buffer("index", torch.arange(4096).flip(0).to(dtype))

    def forward(self, images):
        taken = torch.index_select(self.scale * images.flatten(1), 1, self.index)
        return taken.unflatten(1, (1, 64, 64))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_tables_of_indices_become_int32(tmp_path, dtype):
    what, path = exportable(Shuffle(dtype)), tmp_path / "shuffle.onnx"
    picture = (torch.rand(1, 1, 64, 64),)
    write_onnx(what, picture, path, "fp32")
    assert index_bits(path) == {32}
    assert compare(what, path, [picture])[0].largest_difference == 0


def test_wide_tables_are_refused_in_every_precision(tmp_path):
    with pytest.raises(ParityError, match="tables of int64"):
        GraphFile(1, 1, frozenset({32, 64})).check(tmp_path / "x.onnx", "int8")


def test_a_file_much_larger_than_its_weights_is_refused(tmp_path):
    path = tmp_path / "x.onnx"
    GraphFile(119, 100, frozenset({32})).check(path, "fp16")
    GraphFile(180, 100, frozenset()).check(path, "int8")  # reported: norms and biases are not quantised
    with pytest.raises(ParityError, match=r"121 bytes, 1\.21 times the weights, expected at most 1\.2 times"):
        GraphFile(121, 100, frozenset()).check(path, "fp32")


def test_any_number_of_animals_may_be_given(tmp_path):
    what, path = exportable(nn.Linear(2, 3), any_number=True), tmp_path / "linear.onnx"
    write_onnx(what, (torch.ones(4, 2),), path, "fp32")
    run = open_graph(path)
    assert [run((torch.ones(number, 2),))[0].shape for number in (1, 7)] == [(1, 3), (7, 3)]


@pytest.mark.parametrize(
    ("cosine", "difference", "heads", "message"),
    [
        (0.99, 0.01, HeadsAgreement(1.0, 0.0), "gives map with cosine 0.990000"),
        (float("nan"), 0.01, HeadsAgreement(1.0, 0.0), "cosine nan"),
        (1.0, 1.0, HeadsAgreement(1.0, 0.0), r"gives map wrong by 1\.0000 of its largest value"),  # twice the values
        (1.0, 0.01, HeadsAgreement(0.98, 0.0), "mean IoU"),
        (
            1.0,
            0.01,
            HeadsAgreement(1.0, 0.888),
            r"changes the score of a detection by 0\.88800, expected at most 0\.02",
        ),
        (1.0, 0.01, HeadsAgreement(1.0, float("nan")), "changes the score of a detection by nan"),
    ],
)
def test_parity_names_what_is_wrong(tmp_path, cosine, difference, heads, message):
    outputs = [OutputParity("fine", 0.0, 0.0, 1.0), OutputParity("map", 0.1, difference, cosine)]
    with pytest.raises(ParityError, match=message):
        check_parity(tmp_path / "x.onnx", "fp16", outputs, heads)


def test_good_figures_pass(tmp_path):
    outputs = [OutputParity("map", 0.0, 0.0, 1.0)]
    check_parity(tmp_path / "x.onnx", "fp32", outputs, HeadsAgreement(0.9995, 0.0005))
    check_parity(tmp_path / "x.onnx", "fp32", outputs, HeadsAgreement(float("nan"), 0.0))  # no mask was drawn
    check_parity(tmp_path / "x.onnx", "int8", outputs, HeadsAgreement(0.5, 0.9))  # reported, not promised
    check_parity(tmp_path / "x.onnx", "fp32", outputs, None)
