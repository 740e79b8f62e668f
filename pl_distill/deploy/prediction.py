"""Peak memory of real modules at real size, predicted by running them on fake tensors of a fake device.

What is counted are the bytes of tensors, as CUDA's allocator rounds them (`torch.cuda.max_memory_allocated`). Not in
it: the CUDA context and libraries, workspace inside cuDNN's and cuBLAS's kernels, memory that the allocator keeps and
does not use (`max_memory_reserved`), and the process's own memory. A device's envelope has a reserve for context and
process, and none for the other two.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pl_distill.deploy.allocations import AllocationTracker
from pl_distill.deploy.fused_attention import FusedAttention
from pl_distill.deploy.operations import Operator, OperatorCounter
from pl_distill.deploy.scripted_stream import STAGES, ScriptedStream
from pl_distill.deploy.systems import EMBEDDER_INPUT
from pl_distill.streaming.policy import PruningPolicy


@dataclass(frozen=True)
class StreamMemory:
    """What one frame of a stream takes once its windows are full, and the most that any frame took.

    Args:
        weights_bytes: Of the model, buffers included.
        session_bytes: What the tracker remembers between two frames.
        stage_bytes: Peak within each stage, of all that is alive: weights, session and activations.
        peak_bytes: The most over all frames, the first included.
        operators: Of each stage.
    """

    weights_bytes: int
    session_bytes: int
    stage_bytes: dict[str, int]
    peak_bytes: int
    operators: dict[str, list[Operator]] = field(repr=False)

    @property
    def peak_stage(self) -> str:
        """The stage that takes most."""
        return max(self.stage_bytes, key=lambda stage: self.stage_bytes[stage])


def predict_stream(model: Any, animals: int, frames: int, policy: PruningPolicy) -> StreamMemory:
    """Stream `frames` empty frames with `animals` animals; to be called under `fake_tensors`, or with a real model.

    Attention over CUDA tensors is counted as a fused kernel, as GPUs have it.

    Args:
        model: A deployed `Sam3VideoModel`, on any device.
        animals: Tracked from the first frame on.
        frames: Length of the stream, at least 2; those between the first and the last are not run, for
            each leaves the same.
        policy: What the session forgets.
    """
    tracker, counter = AllocationTracker(), OperatorCounter()
    tracker.hold(model)
    weights, peak = tracker.live_bytes, 0
    stages: dict[str, int] = {}
    operators: dict[str, list[Operator]] = {}
    stage = ""

    def enter(name: str) -> None:
        nonlocal stage, peak
        if stage:
            stages[stage], operators[stage] = tracker.peak_bytes, counter.operators
        peak = max(peak, tracker.peak_bytes)
        tracker.reset_peak()
        counter.clear()
        stage = name

    with FusedAttention(), counter, tracker:
        stream = ScriptedStream(model, animals, policy, enter)
        stream.step()
        enter("")
        stream.fast_forward(frames - 1)
        tracker.reset_peak()
        stream.step()
        enter("")
        session = stream.session.tensor_bytes()
    return StreamMemory(
        weights, session, {name: stages[name] for name in STAGES}, peak, {name: operators[name] for name in STAGES}
    )


def predict_embedder(embedder: nn.Module, animals: int) -> StreamMemory:
    """Embed one crop of each animal at once; to be called under `fake_tensors`."""
    tracker, counter = AllocationTracker(), OperatorCounter()
    tracker.hold(embedder)
    weights = tracker.live_bytes
    dtype = next(embedder.parameters()).dtype
    with FusedAttention(), torch.inference_mode(), counter, tracker:
        embedder(torch.zeros(max(animals, 1), 3, EMBEDDER_INPUT, EMBEDDER_INPUT, dtype=dtype))
    return StreamMemory(
        weights, 0, {"embedder": tracker.peak_bytes}, tracker.peak_bytes, {"embedder": counter.operators}
    )
