"""A network as an ONNX file, and a file as a function.

`torch.onnx.export` (the dynamo exporter) writes the graph, onnxruntime quantises and runs it.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.files import atomic_path
from pl_distill.errors import ConfigError

Precision = Literal["fp32", "fp16", "int8", "int8-static"]
WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "int8": 1, "int8-static": 1}
"""Of a weight, by precision; what int8 does not quantise stays of four."""

OPSET = 20  # the newest that TensorRT 10 reads
MOST_ANIMALS = 256  # at once, of a graph that takes any number
TABLE = 1024  # entries from which on integers in a graph are a table

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Exportable:
    """A network and the names that its graph gets.

    Args:
        network: In eval mode, float32, on the CPU.
        inputs: Names, in the order of its arguments.
        outputs: Names, in the order of what it returns.
        any_number: Whether the first axis of every input is that of the animals, of which there may be any number;
            otherwise the graph takes what the example is like.
    """

    network: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    any_number: bool

    def __call__(self, values: Inputs) -> tuple[Tensor, ...]:
        """Run the network."""
        found = self.network(*values)
        return (found,) if isinstance(found, Tensor) else tuple(found)


def require_onnx() -> None:
    """See that the packages of the extra are installed.

    Raises:
        ConfigError: One is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        fix = "pip install '.[export]'"
        raise ConfigError("export", f"needs {error.name}, which is not installed", "the extra `export`", fix) from error


def write_onnx(
    what: Exportable, example: Inputs, path: Path, precision: Precision, calibration: Sequence[Inputs] = ()
) -> None:
    """Export a network.

    Args:
        what: The network; it stays as it is.
        example: Its inputs, float32; with `any_number` of at least two animals.
        path: File to write; replaced.
        precision: fp16 casts weights and activations. Of the float32 graph, int8 quantises the weights of matrix
            products and convolutions, and activations by the range of each call (dynamic); int8-static quantises both
            by ranges seen in `calibration`, symmetric, as TensorRT wants it.
        calibration: Inputs for int8-static.

    Raises:
        ConfigError: int8-static has nothing to calibrate with.
    """
    if precision == "int8-static" and not calibration:
        raise ConfigError("int8-static", "has no inputs to calibrate with", "at least one", "Give some.")
    program = _trace(what, example, torch.float16 if precision == "fp16" else torch.float32)
    with atomic_path(path) as temporary:
        if precision in ("int8", "int8-static"):
            plain = temporary.with_name(f"{temporary.name}.fp32")
            try:
                program.save(plain, external_data=False)
                _quantise(plain, temporary, what.inputs, calibration if precision == "int8-static" else ())
            finally:
                plain.unlink(missing_ok=True)
        else:
            program.save(temporary, external_data=False)
        _check(temporary)


def _trace(what: Exportable, example: Inputs, dtype: torch.dtype) -> Any:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, DeduplicateInitializersPass

    animals = torch.export.Dim("animals", min=1, max=MOST_ANIMALS)
    # a copy: the program refers to the weights until it is saved, and the network stays as it is
    network = copy.deepcopy(what.network).to(dtype)
    with torch.no_grad(), _plain_attention(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="# The axis name")  # inputs share the axis `animals`: as it should be
        program = torch.onnx.export(
            network,
            _cast(example, dtype),
            input_names=list(what.inputs),
            output_names=list(what.outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            dynamic_shapes=tuple({0: animals} for _ in example) if what.any_number else None,
        )
    assert program is not None, "the dynamo exporter gives a program or raises"
    DeduplicateInitializersPass()(program.model)
    _narrow_tables(program.model)
    ClearMetadataAndDocStringPass()(program.model)  # a stack trace per node: more than the weights of a small head
    return program


def _narrow_tables(model: Any) -> None:
    """Make tables of indices int32: the exporter casts those of up to 8,192 entries, and TensorRT casts them back."""
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        uses = value.uses()
        only_gathered = all(use.node.op_type == "Gather" and use.idx == 1 for use in uses)
        if value.dtype == ir.DataType.INT64 and value.const_value.size > TABLE and uses and only_gathered:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.int32), name=value.name)
            value.dtype = ir.DataType.INT32


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep `nn.TransformerEncoder` from its fused kernel, which ONNX does not have."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _cast(values: Inputs, dtype: torch.dtype) -> Inputs:
    return tuple(value.to(dtype) if value.is_floating_point() else value for value in values)


def _quantise(plain: Path, path: Path, names: tuple[str, ...], calibration: Sequence[Inputs]) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    if not calibration:
        quantize_dynamic(plain, path, weight_type=QuantType.QUInt8)  # its convolutions take unsigned weights only
        return

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._left = iter(calibration)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            values = next(self._left, None)
            return None if values is None else {name: one.numpy() for name, one in zip(names, values, strict=True)}

    quantize_static(
        plain,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],  # what has the weights and the operations
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )


def _check(path: Path) -> None:
    import onnx

    onnx.checker.check_model(path)


def open_graph(path: Path) -> Callable[[Inputs], list[Tensor]]:
    """Return a function that runs a graph and gives float32 tensors."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # one level above, onnxruntime 1.32.0 ends the process while it loads the behaviour head in float16
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # exact sums: by default int8 overflows on processors that add pairs of products in 16 bits (AVX2 without VNNI),
    # and tests/pl_distill/deploy/test_onnx.py found its answer off by 63 %
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entries = session.get_inputs()

    def run(values: Inputs) -> list[Tensor]:
        feed = {}
        for entry, value in zip(entries, values, strict=True):
            array = value.detach().cpu().numpy()
            feed[entry.name] = array.astype(np.float16) if entry.type == "tensor(float16)" else array
        return [torch.from_numpy(output.astype(np.float32)) for output in session.run(None, feed)]

    return run


def index_bits(path: Path) -> set[int]:
    """Return the widths of a graph's tables of integers: those of more than `TABLE` entries."""
    import onnx

    widths = {onnx.TensorProto.INT64: 64, onnx.TensorProto.INT32: 32}
    tables = onnx.load(path).graph.initializer
    return {widths[one.data_type] for one in tables if one.data_type in widths and int(np.prod(one.dims)) > TABLE}
