"""What each of several GPUs holds in a training step, by strategy.

Source: DeepSpeed 0.19.8 (runtime/zero/stage_1_and_2.py, stage3.py) and torch's DistributedDataParallel as
configs/trainer has them. Beside what is divided they have buffers of their own: DDP's buckets are as large as all
gradients; ZeRO keeps float32 copies of its part of the weights, and one or two buckets of `REDUCE_BUCKET` values.
"""

from dataclasses import dataclass

REDUCE_BUCKET = 25_000_000
"""Values in a bucket of gradients: `reduce_bucket_size` of trainer/deepspeed_stage2.yaml and 3. DeepSpeed's own is 500
million, Lightning's 200: buffers of 1.5 GiB for a student whose gradients are 0.1."""

FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class StepMemory:
    """A training step on one GPU.

    Args:
        peak_bytes: Of all of it.
        divided_gradients_bytes: The same where each gradient is divided among the GPUs as soon as it is there.
        weights_bytes: Of what is trained, float32; a gradient has as many.
        states: Tensors of an optimiser per weight.
    """

    peak_bytes: int
    divided_gradients_bytes: int
    weights_bytes: int
    states: int


def each_gpu_holds(step: StepMemory, gpus: int) -> dict[str, int]:
    """Return the peak on each of `gpus` GPUs by strategy, with as many images on each as on the one.

    ZeRO-3 gathers what it needs and lets go of what is not needed again within 10^9 weights (DeepSpeed's
    `stage3_max_reuse_distance`): a network that is smaller is whole on every GPU from its first layer's turn on.
    """
    moments = step.states * step.weights_bytes
    saved = moments - moments // gpus
    part = step.weights_bytes // gpus
    bucket = REDUCE_BUCKET * FLOAT32
    return {
        "ddp": step.peak_bytes + step.weights_bytes,
        "ZeRO-1": step.peak_bytes - saved + part + 2 * bucket,
        "ZeRO-2": step.divided_gradients_bytes - saved + part + 2 * bucket,
        "ZeRO-3": step.divided_gradients_bytes - saved + 2 * part + bucket,
    }
