"""`pl-distill export`: a network as ONNX, checked against the one it was made from."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from datamodules.files import temporary_path
from pl_distill.deploy import onnx_networks as networks
from pl_distill.deploy import onnx_parity as parity
from pl_distill.deploy.onnx_graph import OPSET, Exportable, Inputs, Precision, require_onnx, write_onnx
from pl_distill.errors import ConfigError
from pl_distill.evaluation.models import open_model, plan_model
from pl_distill.models.behaviour_head import load_behaviour, require_embedder
from pl_distill.models.embedder_load import PEN_EMBEDDER, load_embedder
from pl_distill.models.sam3 import substitute

PROMPT = "pig"
SEED = 1_000_000  # of the drawn pen; those below may have been trained on
CALIBRATION_SEED = 0  # of the pen whose ranges int8-static takes: another, or parity would be flattered
CALIBRATION_FRAMES, CALIBRATION_EVERY = 8, 25


def export(
    model: str,
    out: Path,
    teacher: str | None = None,
    what: Literal["student", "embedder", "behaviour"] = "student",
    precision: Precision = "fp32",
    prompt: str = PROMPT,
    embedder: str = PEN_EMBEDDER,
    frames: int = 4,
    keep_failing: bool = False,
) -> None:
    """Write a network as ONNX and compare it with the eager one on drawn pictures of a pen.

    Of a student, everything that it replaces becomes one graph, trunk and both necks: images (1, 3, S, S) in SAM 3's
    normalisation in, six levels out. Of an embedder: crops (N, 3, S, S) of 0..1 in, embeddings and features out. Of a
    behaviour head: windows of features, motion and presence in, logits out. A graph that disagrees is not written: in
    fp32 and fp16 each output, and the masks and scores that the real heads make of it, have to agree; int8 is reported.
    Example: pl-distill export --model runs/demo/student --out student.onnx --precision fp16
    Example: pl-distill export --what embedder --model pen_embedder --out embedder.onnx
    Example: pl-distill export --what behaviour --model pen_behaviour --out behaviour.onnx

    Args:
        model: A student (a folder, shipped, a checkpoint or a bundle), or a SAM 3, whose trunk and necks are then
            written; with --what embedder or behaviour one of these, as `track` takes it.
        out: File to write.
        teacher: The SAM 3 whose heads draw masks and give scores; a student knows its own.
        what: Which network.
        precision: fp32; fp16; int8 (weights quantised, activations by each call's range); int8-static (both quantised
            before, activations by the ranges on other pictures of a pen).
        prompt: What the heads look for.
        embedder: Describes the animals for a behaviour head: the one that it was trained on.
        frames: Pictures to compare on.
        keep_failing: Whether to write a graph that disagrees, too.
    """
    if frames < 1:
        raise ConfigError("--frames", f"is {frames}", "at least 1", "Correct it.")
    unused = {
        "--teacher": (what != "student" and teacher is not None, "a student's export"),
        "--prompt": (what != "student" and prompt != PROMPT, "a student's export"),
        "--embedder": (what != "behaviour" and embedder != PEN_EMBEDDER, "a behaviour head's export"),
    }
    for option, (is_given, expected) in unused.items():
        if is_given:
            raise ConfigError(option, f"is given with --what {what}", expected, "Leave it out.")
    require_onnx()
    if what == "student":
        task = _student(model, teacher, prompt, frames)
    elif what == "embedder":
        task = _embedder(model, frames)
    else:
        task = _behaviour(model, embedder, frames)
    trial = temporary_path(out)  # of this process alone: what is checked is what gets the name
    try:
        began = time.perf_counter()
        calibration = task.calibration() if precision == "int8-static" else []
        write_onnx(task.what, task.inputs[0], trial, precision, calibration)
        seconds = time.perf_counter() - began
        outputs = parity.compare(task.what, trial, task.inputs)
        reading = task.read(trial)
        heads = reading if isinstance(reading, parity.HeadsAgreement) else None
        file = parity.GraphFile.of(trial, task.what, precision)
        print(f"{'output':<18}{'largest difference':>20}{'relative':>12}{'cosine':>12}")
        for one in outputs:
            print(f"{one.name:<18}{one.largest_difference:>20.6f}{one.relative_difference:>12.6f}{one.cosine:>12.7f}")
        said = f"{reading:.5f}" if heads is None else str(heads)
        print(f"\n{task.reading} {said}, {task.of}")
        if heads is not None and math.isnan(heads.mask_iou):
            print("warning: the heads drew no mask on them: levels and scores alone were compared", file=sys.stderr)
        if not keep_failing:
            parity.check_parity(out, precision, outputs, heads)
            file.check(out, precision)
        trial.replace(out)
    finally:
        trial.unlink(missing_ok=True)
    tables = ", ".join(f"int{width}" for width in sorted(file.index_bits)) or "none"
    print(
        f"{out}: {file.size_bytes / 1e6:.2f} MB, {file.ratio:.2f} times the weights, index tables {tables}, "
        f"{precision}, opset {OPSET}, exported in {seconds:.0f} s"
    )


@dataclass(frozen=True, eq=False)
class _Task:
    """A network with what it is compared on.

    Args:
        what: The network.
        inputs: To compare on.
        calibration: Draws other inputs, when they are needed.
        read: Measures what is read from the outputs of a graph.
        reading: What `read` measures.
        of: What it was measured on.
    """

    what: Exportable
    inputs: list[Inputs]
    calibration: Callable[[], list[Inputs]] = field(repr=False)
    read: Callable[[Path], float | parity.HeadsAgreement] = field(repr=False)
    reading: str
    of: str


def _student(model: str, teacher: str | None, prompt: str, frames: int) -> _Task:
    opened = open_model(plan_model(model, teacher), prompt, "cpu")
    inputs = networks.student_inputs(opened.preprocessing, SEED, frames)

    def heads(path: Path) -> parity.HeadsAgreement:
        exported = substitute(opened.sam3, networks.OnnxVision(path))
        return parity.heads_agreement(opened.sam3, exported, opened.prompt, [picture for (picture,) in inputs])

    return _Task(
        networks.student_network(opened.sam3),
        inputs,
        lambda: networks.student_inputs(opened.preprocessing, CALIBRATION_SEED, CALIBRATION_FRAMES, CALIBRATION_EVERY),
        heads,
        "mask IoU through the real heads",
        f"{frames} pictures, prompt {prompt!r}",
    )


def _embedder(model: str, frames: int) -> _Task:
    embedder = load_embedder(model)
    what, inputs = networks.embedder_network(embedder), networks.embedder_inputs(embedder, SEED, frames)
    return _Task(
        what,
        inputs,
        lambda: networks.embedder_inputs(embedder, CALIBRATION_SEED, CALIBRATION_FRAMES, CALIBRATION_EVERY),
        lambda path: parity.similarity_change(what, path, inputs),
        "largest change of the similarity of two crops",
        f"{sum(len(crops) for (crops,) in inputs)} crops of {frames} pictures",
    )


def _behaviour(model: str, embedder: str, frames: int) -> _Task:
    behaviour, described = load_behaviour(model), load_embedder(embedder)
    require_embedder(behaviour, described.identity)
    what, inputs = networks.behaviour_network(behaviour), networks.behaviour_inputs(behaviour, described, SEED, frames)
    return _Task(
        what,
        inputs,
        lambda: networks.behaviour_inputs(behaviour, described, CALIBRATION_SEED, CALIBRATION_FRAMES),
        lambda path: parity.same_class(what, path, inputs),
        "windows with the same behaviour",
        f"{sum(len(windows[0]) for windows in inputs)} windows of {frames} pictures",
    )
