"""Peak memory of a distillation step, predicted on fake tensors.

The fake device is the CPU, for torch's backward pass asks a real CUDA driver; what CUDA's autocast computes in float32
and the CPU's does not (norms, softmax, reductions) is put into float32 here, too, so that the same tensors are kept.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from datamodules.batch import DistillationBatch
from pl_distill.deploy.allocations import AllocationTracker
from pl_distill.losses.feature_loss import Progress
from pl_distill.models.sam3 import Sam3Geometry

FLOAT32_ON_CUDA = {  # of torch/amp's list for CUDA, what students and losses call (docs: "CUDA Ops that can autocast")
    F.layer_norm,
    F.group_norm,
    F.softmax,
    F.mse_loss,
    F.smooth_l1_loss,
    F.cosine_similarity,
    F.normalize,
    torch.sum,
    torch.norm,
    torch.linalg.vector_norm,
    Tensor.sum,
    Tensor.norm,
    Tensor.pow,
    Tensor.exp,
    Tensor.log,
    Tensor.softmax,
}


class CudaAutocastRules(TorchFunctionMode):
    """Give float32 to the functions that CUDA's autocast gives it to."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Cast the arguments of a listed function."""
        kwargs = kwargs or {}
        if func in FLOAT32_ON_CUDA:
            args, kwargs = tree_map(_to_float32, (args, kwargs))
        return func(*args, **kwargs)


def predict_training(
    module: Any, geometry: Sam3Geometry, batch_size: int, states: int, *, mixed: bool, gpus: int = 1
) -> int:
    """Return the peak bytes of a training step with both pyramids; to be called under ``fake_tensors("cpu")``.

    With a real module on the CPU it trains for a step, and returns what its tensors took.

    Args:
        module: A `DistillationModule` with its student and necks.
        geometry: Of the teacher.
        batch_size: Images per step and device.
        states: Tensors that the optimiser keeps per parameter, of its size; see `states_per_parameter`.
        mixed: Whether under bfloat16 autocast by CUDA's rules; otherwise in float32.
        gpus: Among so many each gradient is divided as soon as it is whole, and one part stays.
    """
    batch: DistillationBatch = {
        "key": [""] * batch_size,
        "image": torch.zeros(batch_size, 3, geometry.image_size, geometry.image_size),
        "teacher_map": torch.zeros(batch_size, *geometry.map_shape),
    }
    parameters = [weight for weight in module.student.parameters() if weight.requires_grad]
    tracker = AllocationTracker()
    tracker.hold(module.student, module.necks, batch["image"], batch["teacher_map"])
    with ExitStack() as stack:
        if mixed:
            stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
            stack.enter_context(CudaAutocastRules())
        stack.enter_context(tracker)
        kept = [[torch.empty_like(weight) for weight in parameters] for _ in range(states)]
        parts: list[Tensor] = []
        hooks = [
            weight.register_post_accumulate_grad_hook(_keep_part(parts, gpus)) for weight in parameters if gpus > 1
        ]
        progress = Progress(1, 2)
        features = module.compare(batch, level_images=module.loss.pyramid_images(batch_size))
        with torch.autocast("cpu", enabled=False):
            loss = module.loss(*features, progress)["loss"]
        compared = features.first(module.gradient_meter.images)
        loss.backward()
        for hook in hooks:
            hook.remove()
        del features, loss
        module.gradient_meter.measure(compared, progress)  # as the first step of a run does, and every hundredth
        del compared, kept, parts
    return tracker.peak_bytes


def states_per_parameter(module: Any) -> int:
    """Count the tensors of a parameter's size that the recipe's optimiser keeps: 2 for AdamW."""
    probe = nn.Parameter(torch.zeros(4, 4))
    optimizer = module.build_optimizer([{"params": [probe]}])
    probe.grad = torch.zeros(4, 4)
    optimizer.step()
    return sum(isinstance(kept, Tensor) and kept.numel() == probe.numel() for kept in optimizer.state[probe].values())


def _keep_part(parts: list[Tensor], gpus: int) -> Callable[[Tensor], None]:
    def divide(weight: Tensor) -> None:
        parts.append(torch.empty(-(-weight.numel() // gpus)))
        weight.grad = None

    return divide


def _to_float32(thing: Any) -> Any:
    is_half = isinstance(thing, Tensor) and thing.dtype in (torch.bfloat16, torch.float16)
    return thing.float() if is_half else thing
