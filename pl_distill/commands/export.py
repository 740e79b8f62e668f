"""`pl-distill export`: a network as ONNX, checked against the one it was made from."""

import time
from pathlib import Path
from typing import Literal

import torch

from datamodules.pen import load_pen_config, pen_frames
from datamodules.preprocessing import Preprocessing
from pl_distill.deploy import export as onnx_export
from pl_distill.errors import ConfigError
from pl_distill.evaluation.models import count_parameters, open_model, plan_models
from pl_distill.models.sam3 import substitute

SEED = 1_000_000  # of the drawn pen; those below may have been trained on


def export(
    model: str,
    out: Path,
    teacher: str | None = None,
    what: Literal["student"] = "student",
    format: Literal["onnx"] = "onnx",
    precision: onnx_export.Precision = "fp32",
    prompt: str = "pig",
    frames: int = 4,
    keep_failing: bool = False,
) -> None:
    """Write a network as ONNX and compare it with the eager one on drawn pictures of a pen.

    What a student replaces, trunk and both necks, becomes one graph: images (1, 3, S, S) in SAM 3's normalisation, six
    levels out. A graph that disagrees is not written: in fp32 and fp16 each output and the masks that the real heads
    draw from it have to agree; int8 is reported.
    Example: pl-distill export --model runs/demo/student --out student.onnx --precision fp16

    Args:
        model: A student (its folder, a checkpoint or a bundle), or a SAM 3, whose trunk and necks are then written.
        out: File to write.
        teacher: The SAM 3 whose heads draw the masks; a student knows its own.
        what: Which network.
        format: Of the file.
        precision: fp32, fp16, or int8 (weights only, quantised dynamically).
        prompt: What the heads look for.
        frames: Pictures to compare on.
        keep_failing: Whether to write a graph that disagrees, too.
    """
    if frames < 1:
        raise ConfigError("--frames", f"is {frames}", "at least 1", "Correct it.")
    onnx_export.require_onnx()
    opened = open_model(plan_models(model, teacher)[-1], prompt, "cpu")
    network = onnx_export.VisionPyramids(opened.sam3).eval()
    pictures = _pictures(opened.preprocessing, frames)
    names = onnx_export.LEVEL_NAMES
    trial = out.with_name(f".{out.name}.trial")
    try:
        began = time.perf_counter()
        onnx_export.write_onnx(network, pictures[0], names, trial, precision)
        seconds = time.perf_counter() - began
        outputs = onnx_export.compare(network, trial, pictures, names)
        exported = substitute(opened.sam3, onnx_export.OnnxVision(trial))
        masks = onnx_export.mask_iou(opened.sam3, exported, opened.prompt, pictures)
        bits = onnx_export.index_bits(trial)
        print(f"{'output':<18}{'largest difference':>20}{'relative':>12}{'cosine':>12}")
        for one in outputs:
            print(f"{one.name:<18}{one.largest_difference:>20.6f}{one.relative_difference:>12.6f}{one.cosine:>12.7f}")
        print(f"\nmask IoU through the real heads {masks:.5f}, {frames} pictures, prompt {prompt!r}")
        if not keep_failing:
            onnx_export.check_parity(out, precision, outputs, masks)
        size, weights = trial.stat().st_size, _weight_bytes(network, precision)
        trial.replace(out)
    finally:
        trial.unlink(missing_ok=True)
    tables = ", ".join(f"int{width}" for width in sorted(bits)) or "none"
    print(
        f"{out}: {size / 1e6:.1f} MB, {size / weights:.2f} times the weights, index tables {tables}, "
        f"{precision}, opset {onnx_export.OPSET}, exported in {seconds:.0f} s"
    )


def _pictures(preprocessing: Preprocessing, frames: int) -> list[torch.Tensor]:
    drawn = pen_frames(load_pen_config("day"), seed=SEED, frames=frames)
    return [preprocessing(frame.image)[None] for frame in drawn]


def _weight_bytes(network: torch.nn.Module, precision: str) -> int:
    width = {"fp32": 4, "fp16": 2, "int8": 1}[precision]
    return count_parameters(network) * width
