"""A network as ONNX, and whether it still gives what it gave.

`torch.onnx.export` (the dynamo exporter) writes the graph, onnxruntime runs it. A graph that disagrees with the eager
network is not written: "PASSED" of a converter says that a file was built, not that it is right (docs/deployment.md).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UserError
from datamodules.files import atomic_path
from pl_distill.errors import ConfigError
from pl_distill.models.sam3_necks import LEVELS, Pyramids

Precision = Literal["fp32", "fp16", "int8"]
OPSET = 20  # the newest that TensorRT 10 reads
LEVEL_NAMES = (
    "detector_fine",
    "detector_middle",
    "detector_coarse",
    "tracker_fine",
    "tracker_middle",
    "tracker_coarse",
)
LEAST_MASK_IOU = {"fp32": 0.999, "fp16": 0.99, "int8": None}
LEAST_COSINE = {"fp32": 0.9999, "fp16": 0.999, "int8": None}
"""What parity asks for; int8 is reported, not promised."""


class ParityError(UserError):
    """An exported graph does not give what the network gives."""


@dataclass(frozen=True)
class OutputParity:
    """One output of a graph against the eager network in float32.

    Args:
        name: Of the output.
        largest_difference: Of a value, over all inputs.
        relative_difference: The same over the output's largest value.
        cosine: Of the whole output, the least over all inputs.
    """

    name: str
    largest_difference: float
    relative_difference: float
    cosine: float


class VisionPyramids(nn.Module):
    """Everything that a student replaces, as one network: pictures in, the six levels that are read out.

    Args:
        sam3: A `Sam3VideoModel`, substituted or not.
    """

    def __init__(self, sam3: Any) -> None:
        super().__init__()
        vision = sam3.detector_model.vision_encoder
        self.backbone = vision.backbone
        self.necks = nn.ModuleList([vision.neck, sam3.tracker_neck])
        self.grid = vision.config.backbone_config.image_size // vision.config.backbone_config.patch_size

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map normalised images (1, 3, S, S) to three levels each of detector and tracker, fine to coarse."""
        tokens = self.backbone(images).last_hidden_state  # (1, h*w, C)
        trunk_map = tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        levels: list[Tensor] = []
        for module in self.necks:
            neck: Any = module
            found = [layer(trunk_map) for layer in neck.fpn_layers[:LEVELS]] if hasattr(neck, "fpn_layers") else None
            levels += neck.levels(trunk_map) if found is None else found
        return tuple(levels)


class OnnxVision(nn.Module):
    """A student whose answers come from onnxruntime; `substitute` puts it before the real heads.

    Args:
        path: Graph with the six outputs of `VisionPyramids`.
    """

    keeps_necks = False

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.run = open_graph(path)

    def forward(self, images: Tensor) -> Pyramids:
        """Map images (1, 3, S, S) to both pyramids in float32."""
        levels = [torch.from_numpy(level) for level in self.run(images)]
        return Pyramids((levels[0], levels[1], levels[2]), (levels[3], levels[4], levels[5]))


def open_graph(path: Path) -> Callable[[Tensor], list[np.ndarray[Any, Any]]]:
    """Return a function that runs a graph on one picture and gives float32 arrays."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    half = entry.type == "tensor(float16)"

    def run(images: Tensor) -> list[np.ndarray[Any, Any]]:
        array = images.detach().cpu().float().numpy()
        outputs = session.run(None, {entry.name: array.astype(np.float16) if half else array})
        return [output.astype(np.float32) for output in outputs]

    return run


def write_onnx(network: nn.Module, example: Tensor, names: Sequence[str], path: Path, precision: Precision) -> None:
    """Export a network with one input, `images`, of fixed size.

    Args:
        network: In eval mode, float32; it stays so.
        example: Input, shape (1, 3, S, S), float32.
        names: Of the outputs.
        path: File to write; replaced.
        precision: fp16 casts weights and activations; int8 quantises the weights of matrix products and convolutions
            of the float32 graph dynamically (onnxruntime).
    """
    import onnx
    from onnx_ir.passes.common import DeduplicateInitializersPass

    dtype = torch.float16 if precision == "fp16" else torch.float32
    # a copy: the program refers to the weights until it is saved, and `network` stays as it is
    cast = copy.deepcopy(network).to(dtype)
    with torch.no_grad():
        program = torch.onnx.export(
            cast,
            (example.to(dtype),),
            input_names=["images"],
            output_names=list(names),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ParityError("torch.onnx.export", "gave no program", "an ONNX program", "Report it with the version.")
    DeduplicateInitializersPass()(program.model)
    with atomic_path(path) as temporary:
        if precision == "int8":
            from onnxruntime.quantization import QuantType, quantize_dynamic

            plain = temporary.with_suffix(".fp32")
            try:
                program.save(plain, external_data=False)
                quantize_dynamic(plain, temporary, weight_type=QuantType.QUInt8)
            finally:
                plain.unlink(missing_ok=True)
        else:
            program.save(temporary, external_data=False)
        onnx.checker.check_model(temporary)


def compare(network: nn.Module, path: Path, pictures: Sequence[Tensor], names: Sequence[str]) -> list[OutputParity]:
    """Run pictures (1, 3, S, S) through the eager network in float32 and through a graph."""
    run = open_graph(path)
    largest, scale, cosine = ([value] * len(names) for value in (0.0, 0.0, 1.0))
    with torch.inference_mode():
        for picture in pictures:
            for number, (ours, theirs) in enumerate(zip(_as_tuple(network(picture)), run(picture), strict=True)):
                other = torch.from_numpy(theirs)
                largest[number] = max(largest[number], float((ours - other).abs().max()))
                scale[number] = max(scale[number], float(ours.abs().max()))
                angle = F.cosine_similarity(ours.double().flatten(), other.double().flatten(), dim=0)
                cosine[number] = min(cosine[number], float(angle))
    return [
        OutputParity(name, *figures)
        for name, *figures in zip(
            names, largest, (d / max(s, 1e-30) for d, s in zip(largest, scale, strict=True)), cosine, strict=True
        )
    ]


@torch.inference_mode()
def mask_iou(sam3: Any, exported: Any, prompt: Any, pictures: Sequence[Tensor], best: int = 8) -> float:
    """Return the mean IoU of the masks that the real heads draw behind both encoders.

    Args:
        sam3: With the eager encoder.
        exported: The same with an `OnnxVision`.
        prompt: A `PromptEmbedding`.
        pictures: Each (1, 3, S, S).
        best: So many queries with the highest scores are compared per picture, in the eager model's order.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    ious = []
    for picture in pictures:
        masks, order = [], None
        for model in (sam3, exported):
            detector = model.detector_model
            output = detector(
                vision_embeds=detector.get_vision_features(pixel_values=picture),
                text_embeds=BaseModelOutputWithPooling(pooler_output=prompt.embedding),
                attention_mask=prompt.attention_mask,
            )
            if order is None:
                order = output.pred_logits[0].topk(min(best, output.pred_logits.shape[1])).indices
            masks.append(output.pred_masks[0][order] > 0)
        both, either = (masks[0] & masks[1]).flatten(1).sum(1), (masks[0] | masks[1]).flatten(1).sum(1)
        ious += torch.where(either > 0, both / either.clamp(min=1), 1.0).tolist()
    return float(np.mean(ious))


def check_parity(path: Path, precision: Precision, outputs: Sequence[OutputParity], masks: float | None) -> None:
    """Refuse a graph that does not give what it should.

    Raises:
        ParityError: A cosine or the mask IoU is below what this precision promises, or an output is not finite.
    """
    least_cosine, least_iou = LEAST_COSINE[precision], LEAST_MASK_IOU[precision]
    fix = "Keep a higher precision, or look at the graph and give --keep_failing true."
    worst = min(outputs, key=lambda one: -1.0 if np.isnan(one.cosine) else one.cosine)
    if np.isnan(worst.cosine) or (least_cosine is not None and worst.cosine < least_cosine):
        found = f"gives {worst.name} with cosine {worst.cosine:.6f} to the network's"
        raise ParityError(path, found, f"at least {least_cosine or 0} in {precision}", fix)
    if masks is not None and least_iou is not None and masks < least_iou:
        found = f"gives masks whose mean IoU with the network's is {masks:.5f}"
        raise ParityError(path, found, f"at least {least_iou} in {precision}", fix)


def index_bits(path: Path) -> set[int]:
    """Return the widths of the integer tables in a graph that have more than 1,024 entries."""
    import onnx

    widths = {onnx.TensorProto.INT64: 64, onnx.TensorProto.INT32: 32}
    tables = onnx.load(path).graph.initializer
    return {widths[one.data_type] for one in tables if one.data_type in widths and int(np.prod(one.dims)) > 1024}


def _as_tuple(output: Any) -> tuple[Tensor, ...]:
    return (output,) if isinstance(output, Tensor) else tuple(output)


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
        fix = "pip install 'pl-distill[export]'"
        raise ConfigError("export", f"needs {error.name}, which is not installed", "the extra `export`", fix) from error
