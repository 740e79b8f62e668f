"""What a recipe's systems need, before a GPU is rented: parameters, predicted peak memory, operations, frames a second.

Three systems stand side by side: SAM 3 as transformers runs it (whole, a session that forgets nothing), the same as we
deploy it (no text or geometry encoder, pruned), and the student's.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from pl_distill.deploy.data_parallel import StepMemory, each_gpu_holds
from pl_distill.deploy.envelope import Envelope, Verdict, check
from pl_distill.deploy.operations import operations, roofline_s
from pl_distill.deploy.parameters import Definition, Part, definitions, student_parts, teacher_parts
from pl_distill.deploy.prediction import StreamMemory, predict_embedder, predict_stream
from pl_distill.deploy.recipe import BudgetRecipe
from pl_distill.deploy.systems import build_embedder, build_student, build_teacher, drop_unused, fake_tensors
from pl_distill.deploy.training import predict_training, states_per_parameter
from pl_distill.models.sam3 import Sam3Geometry, substitute
from pl_distill.streaming.policy import PruningPolicy
from pl_distill.streaming.session import MemoryWindow

STOCK, TEACHER, STUDENT = "SAM 3 as transformers runs it", "SAM 3 deployed", "student deployed"
SYSTEMS = (STOCK, TEACHER, STUDENT)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
DEVICE = "cuda"  # a fake one
SAME_SIZE = {"fp16": "bf16"}
"""Precisions whose tensors are of the same size: the one is predicted, the other quotes it."""


@dataclass(frozen=True)
class SystemMemory:
    """Predicted memory of one system in one precision, without and with the embedder.

    Args:
        system: One of `SYSTEMS`.
        precision: Key of `DTYPES`.
        stream: Of detector and tracker.
        embedder: Of one crop per animal at once, in float32 beside every precision, as `track` runs it after a frame.
    """

    system: str
    precision: str
    stream: StreamMemory
    embedder: StreamMemory

    @property
    def peak_bytes(self) -> int:
        """The most at a time: the embedder's weights lie beside the stream, or its activations beside the session."""
        idle = self.stream.weights_bytes + self.stream.session_bytes
        return max(self.stream.peak_bytes + self.embedder.weights_bytes, idle + self.embedder.peak_bytes)

    def parts(self) -> dict[str, int]:
        """Return what makes the peak, in bytes by name."""
        session = min(self.stream.session_bytes, self.stream.peak_bytes - self.stream.weights_bytes)
        peak_in_stream = self.stream.peak_bytes + self.embedder.weights_bytes >= self.peak_bytes
        stage = self.stream.peak_stage if peak_in_stream else "embedder"
        fixed = self.stream.weights_bytes + self.embedder.weights_bytes + session
        return {
            "weights": self.stream.weights_bytes + self.embedder.weights_bytes,
            "session": session,
            f"activations of the {stage}": self.peak_bytes - fixed,
        }

    def frame_s(self, envelope: Envelope) -> dict[str, float]:
        """Return the roofline of each stage on a device, in seconds."""
        tflops = envelope.float_tflops if self.precision == "fp32" else envelope.half_tflops
        stages = [(*stage, tflops) for stage in self.stream.operators.items()]
        stages += [(*stage, envelope.float_tflops) for stage in self.embedder.operators.items()]
        return {
            stage: roofline_s(operators, speed * 1e12, envelope.bandwidth_gb_s * 1e9)
            for stage, operators, speed in stages
        }


@dataclass(frozen=True)
class Budget:
    """Everything that was found.

    Args:
        recipe: File.
        teacher: Name of the SAM 3.
        animals: Tracked at a time.
        frames: Length of the stream.
        parts: Of teacher and student, by name of the side.
        definitions: Ways to count.
        memory: Of every system and precision.
        training_bytes: Peak of a training step, by precision; empty where it was not asked for.
        batch_size: Images per training step and GPU.
        gpus: That train together.
        each_gpu_bytes: What each of them holds, by strategy, bf16-mixed; empty for one GPU.
    """

    recipe: str
    teacher: str
    animals: int
    frames: int
    parts: dict[str, list[Part]]
    definitions: list[Definition]
    memory: list[SystemMemory]
    training_bytes: dict[str, int]
    batch_size: int
    gpus: int = 1
    each_gpu_bytes: dict[str, int] = field(default_factory=dict)

    def of(self, system: str, precision: str) -> SystemMemory:
        """Return one system's memory."""
        wanted = SAME_SIZE.get(precision, precision)
        return next(one for one in self.memory if (one.system, one.precision) == (system, wanted))

    @property
    def precisions(self) -> list[str]:
        """Those that were predicted."""
        return list(dict.fromkeys(one.precision for one in self.memory))

    def verdict(self, envelope: Envelope, precision: str) -> Verdict:
        """Compare the student's system with a device."""
        return check(envelope, self.of(STUDENT, precision).parts())

    def to_json(self, envelopes: dict[str, Envelope]) -> dict[str, Any]:
        """Return it as plain values; sizes in bytes, operations of one frame."""
        return {
            "schema": 1,
            "recipe": self.recipe,
            "teacher": self.teacher,
            "animals": self.animals,
            "frames": self.frames,
            "parameters": {side: {part.name: part.parameters for part in parts} for side, parts in self.parts.items()},
            "definitions": [asdict(one) | {"ratio": one.ratio} for one in self.definitions],
            "memory": [
                {
                    "system": one.system,
                    "precision": one.precision,
                    "peak_bytes": one.peak_bytes,
                    "parts_bytes": one.parts(),
                    "weights_bytes": one.stream.weights_bytes,
                    "session_bytes": one.stream.session_bytes,
                    "stage_peak_bytes": one.stream.stage_bytes | {"embedder": one.embedder.peak_bytes},
                    "operations": {
                        stage: operations(found)
                        for stage, found in (one.stream.operators | one.embedder.operators).items()
                    },
                    "roofline_s": {name: one.frame_s(envelope) for name, envelope in envelopes.items()},
                }
                for one in self.memory
            ],
            "training": {
                "batch_size": self.batch_size,
                "peak_bytes": self.training_bytes,
                "gpus": self.gpus,
                "each_gpu_bytes": self.each_gpu_bytes,
            },
            "devices": {
                name: {
                    "name": envelope.name,
                    "budget_gib": envelope.budget_gib,
                    "reserve_gib": envelope.reserve_gib,
                    "headroom_gib": {
                        precision: self.verdict(envelope, precision).headroom_gib for precision in self.precisions
                    },
                }
                for name, envelope in envelopes.items()
            },
        }


def predict(
    recipe: BudgetRecipe,
    animals: int,
    frames: int,
    precisions: list[str],
    *,
    training: bool = True,
    gpus: int = 1,
    systems: tuple[str, ...] = SYSTEMS,
    progress: Callable[[str], None] = lambda _what: None,
) -> Budget:
    """Predict what a recipe's systems need; needs neither weights nor a GPU, and 5 to 10 seconds for each system.

    Args:
        recipe: Of `read_recipe`.
        animals: Tracked at a time.
        frames: Length of the stream, at least 2: what the unpruned session grows to. The others are taken with the
            fullest session that they ever have.
        precisions: Keys of `DTYPES`.
        training: Whether to predict a training step, too.
        gpus: Among how many a training step shall be divided, each with the recipe's batch.
        systems: Which; the table of parameters has all.
        progress: Is told what is being done.
    """
    memory = []
    embedder = build_embedder()
    with fake_tensors(DEVICE):
        embedding = predict_embedder(embedder.to_empty(device=DEVICE), animals)
    for precision in dict.fromkeys(SAME_SIZE.get(precision, precision) for precision in precisions):
        for system in systems:
            progress(f"{system}, {precision}")
            memory.append(
                SystemMemory(system, precision, _stream(recipe, system, precision, animals, frames), embedding)
            )
    training_bytes: dict[str, int] = {}
    each_gpu: dict[str, int] = {}
    if training:
        for name, mixed in (("bf16-mixed", True), ("32-true", False)):
            progress(f"training step, {name}")
            training_bytes[name] = _training(recipe, mixed=mixed)
        if gpus > 1:
            progress(f"training step, bf16-mixed, gradients of {gpus} GPUs")
            each_gpu = each_gpu_holds(_step(recipe, training_bytes["bf16-mixed"], gpus), gpus)
    parts = _parts(recipe)
    return Budget(
        recipe.name,
        recipe.teacher,
        animals,
        frames,
        parts,
        definitions(parts["teacher"], parts["student"]),
        memory,
        training_bytes,
        recipe.batch_size,
        gpus,
        each_gpu,
    )


def _stream(recipe: BudgetRecipe, system: str, precision: str, animals: int, frames: int) -> StreamMemory:
    dtype = DTYPES[precision]
    model = build_teacher(recipe.config, dtype)
    student = None
    if system != STOCK:
        drop_unused(model)
    if system == STUDENT:
        student = build_student(recipe.module.build_student, model, pyramids=recipe.pyramids, dtype=dtype)
    policy = PruningPolicy.as_transformers()
    if system != STOCK:
        policy = PruningPolicy("bounded", encode_singly=True)
        full = MemoryWindow.of(recipe.config).full_after(recipe.config.recondition_every_nth_frame)
        frames = max(frames, full + 1)  # the last frame reads a full window
    with fake_tensors(DEVICE):
        model.to_empty(device=DEVICE)
        if student is not None:
            model = substitute(model, student.to_empty(device=DEVICE))
        return predict_stream(model, animals, frames, policy)


def _step(recipe: BudgetRecipe, peak_bytes: int, gpus: int) -> StepMemory:
    divided = _training(recipe, mixed=True, gpus=gpus)
    module = recipe.fill_module()
    weights = sum(weight.nbytes for weight in module.student.parameters() if weight.requires_grad)
    return StepMemory(peak_bytes, divided, weights, states_per_parameter(module))


def _training(recipe: BudgetRecipe, *, mixed: bool, gpus: int = 1) -> int:
    module, geometry = recipe.fill_module(), Sam3Geometry.of(recipe.config)
    states = states_per_parameter(module)
    with fake_tensors("cpu"):
        module.student.to_empty(device="cpu")
        module.necks.to_empty(device="cpu")
        return predict_training(module, geometry, recipe.batch_size, states, mixed=mixed, gpus=gpus)


def _parts(recipe: BudgetRecipe) -> dict[str, list[Part]]:
    teacher, embedder = build_teacher(recipe.config), build_embedder()
    student = build_student(recipe.module.build_student, teacher, pyramids=recipe.pyramids, dtype=torch.float32)
    return {"teacher": teacher_parts(teacher, embedder), "student": student_parts(teacher, student, embedder)}
