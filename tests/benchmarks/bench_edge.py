"""The real size on a CPU, one thread, random weights: the encoder that a student replaces, a bundle, and streaming.

Builds SAM 3's trunk and necks (462M parameters, 1.8 GB) and both students; ten minutes on a free core. Ratios are of
processor time, so that a busy machine does not decide.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pl_distill.deploy.onnx_networks import VisionPyramids
from pl_distill.deploy.scripted_stream import ScriptedStream
from pl_distill.deploy.systems import build_student, build_teacher, drop_unused
from pl_distill.evaluation.memory import peak_rss_bytes, reset_peaks, rss_bytes
from pl_distill.models.bundle import write_bundle
from pl_distill.models.prompts import TOKENS, PromptEmbedding
from pl_distill.models.sam3 import load_sam3_config, substitute
from pl_distill.models.student_io import Student
from pl_distill.models.tinyvit_dual import TinyViTDualPyramid
from pl_distill.models.tinyvit_fpn import TinyViTFPN
from pl_distill.streaming.policy import PruningPolicy
from tests.benchmarks.measure import Figure

CONFIG = "real"
ANIMALS, FRAMES = 8, 10
GIB = 2**30
LOAD = """
import sys, time
import torch
from pl_distill.evaluation.memory import peak_rss_bytes
from pl_distill.evaluation.models import open_model, plan_models
begin = time.perf_counter()
open_model(plan_models(sys.argv[1], None)[-1], "pig", "cpu")
print(time.perf_counter() - begin, peak_rss_bytes())
"""


def measure() -> list[Figure]:
    """Time both students against the teacher, load a bundle, and stream ten frames with eight animals."""
    config = load_sam3_config(CONFIG)
    figures, system, student = compare_encoders(config)  # the teacher's trunk is gone with its name
    with TemporaryDirectory() as folder:
        figures += load_bundle(system, student, Path(folder) / "bundle", config)
    return [*figures, *stream(system)]


def compare_encoders(config: Any) -> tuple[list[Figure], Any, Student]:
    """Time everything that a student replaces; return the system of the default student, too."""
    teacher = drop_unused(build_teacher(config))
    default = build_student(TinyViTFPN, teacher, pyramids=False, dtype=torch.float32)
    dual = build_student(TinyViTDualPyramid, teacher, pyramids=True, dtype=torch.float32)
    size = config.detector_config.vision_config.backbone_config.image_size
    picture = torch.randn(1, 3, size, size)
    encoder = VisionPyramids(fill(teacher))
    with torch.inference_mode():
        replaced = seconds(lambda: encoder(picture), rounds=0)  # minutes: once
        figures = [Figure("edge.teacher_encoder", replaced, "s")]
        for name, student in (("trunk", default), ("pyramids", dual)):
            smaller = VisionPyramids(substitute(teacher, fill(student)))
            own = seconds(partial(smaller, picture), rounds=3)
            figures += [
                Figure(f"edge.student_encoder.{name}", own, "s"),
                Figure(f"edge.teacher_over_student.{name}", replaced / own, "ratio", ">= 18"),
            ]
    return figures, substitute(teacher, default), default


def load_bundle(system: Any, student: Student, folder: Path, config: Any) -> list[Figure]:
    """Write a bundle and open it in a process of its own."""
    width = config.detector_config.detr_encoder_config.hidden_size
    prompt = PromptEmbedding("pig", torch.zeros(1, TOKENS, width), torch.ones(1, TOKENS, dtype=torch.long))
    source = folder.with_name("source")
    source.mkdir()
    config.save_pretrained(source)
    from pl_distill.models.sam3_random import sam3_processor

    sam3_processor(config).save_pretrained(source)
    write_bundle(folder, system, student, source, {"pig": prompt}, {}, {"teacher": "random"})
    words = [sys.executable, "-c", LOAD, str(folder)]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    return [
        Figure("edge.bundle.size", sum(path.stat().st_size for path in folder.iterdir()) / 1e6, "MB"),
        Figure("edge.bundle.load", float(printed[0]), "s"),
        Figure("edge.bundle.peak_rss_after_load", int(printed[1]) / GIB, "GiB"),
    ]


def stream(system: Any) -> list[Figure]:
    """Stream ten frames in which eight animals are always found; the resident set holds this process's own libraries.

    The first and the last are computed; what those between would leave in the session is put there.
    """
    tracker = ScriptedStream(system, ANIMALS, PruningPolicy("bounded", encode_singly=True))
    before = rss_bytes() or 0
    reset_peaks()
    tracker.step()
    tracker.fast_forward(FRAMES - 1)
    last = seconds(tracker.step, rounds=0)
    return [
        Figure("edge.stream.peak_rss", peak_rss_bytes() / GIB, "GiB"),
        Figure("edge.stream.peak_over_loaded", (peak_rss_bytes() - before) / GIB, "GiB"),
        Figure("edge.stream.frame_10", last, "s"),
    ]


def fill(module: Any) -> Any:
    """Give small random numbers to a module that was built without memory."""
    module.to_empty(device="cpu")
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data.normal_(std=0.02).abs_()
        else:
            tensor.zero_()
    return module


def seconds(action: Callable[[], object], rounds: int) -> float:
    """Return the median processor seconds of a call, after one that is not counted; with no rounds, of the first."""
    found = []
    for number in range(rounds + 1):
        begin = time.process_time()
        action()
        if number or not rounds:
            found.append(time.process_time() - begin)
    return statistics.median(found)
