"""Lightning's DeepSpeed strategy that also runs on CPUs, where there is no GPU; on CUDA it is the parent.

Lightning 2.6 refuses anything but CUDA (lightning/pytorch/strategies/deepspeed.py, `setup_environment`), although
DeepSpeed has a CPU accelerator. What differs: CPU devices are numbered, the refusal is skipped for them, and
DeepSpeed's shared-memory op, which it would compile at the first start, is left out, so that no compiler is needed;
gloo does its work.

With `accumulate_grad_batches` Lightning alone decides which batch ends a step, as under DDP: DeepSpeed would count
batches on from epoch to epoch, and divide each batch's loss by their number a second time.

Checkpoints are written beside their name and renamed, and one of another number of processes is refused by name.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from datamodules.files import partial_directory, replace_directory
from pl_distill.errors import CheckpointError


class CPUDeepSpeedStrategy(DeepSpeedStrategy):
    """DeepSpeed on CUDA as Lightning has it, and on CPUs with gloo.

    Args:
        autocast: "bfloat16" lets DeepSpeed compute in bfloat16 while parameters, optimiser and BatchNorm's statistics
            stay in float32; leave the trainer's `precision` at 32-true with it. Lightning's bf16-mixed casts parameters
            but not the statistics, and TinyViT's BatchNorm then fails on CPUs.
        **options: As for `lightning.pytorch.strategies.DeepSpeedStrategy`, such as `stage`.
    """

    def __init__(self, autocast: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        if autocast is not None:
            if not isinstance(self.config, dict):
                raise TypeError("autocast needs a DeepSpeed configuration that is a dict")
            self.config["torch_autocast"] = {"enabled": True, "dtype": autocast}

    @property
    def parallel_devices(self) -> list[torch.device] | None:
        """The devices of this node; CPUs are numbered, since DeepSpeed asks for an index (torch takes cpu:1 as cpu)."""
        return self._parallel_devices

    @parallel_devices.setter
    def parallel_devices(self, devices: list[torch.device] | None) -> None:
        if devices is not None:
            devices = [torch.device("cpu", i) if d.type == "cpu" else d for i, d in enumerate(devices)]
        self._parallel_devices = devices

    def setup_environment(self) -> None:
        """Start the processes, on CPUs as plain DDP does."""
        if isinstance(self.accelerator, CPUAccelerator):
            import deepspeed.ops

            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            DDPStrategy.setup_environment(self)
        else:
            super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Let the batch statistics be those of all ranks where `sync_batchnorm` asks for it: the parent forgets it."""
        if trainer.state.fn == TrainerFn.FITTING and self._layer_sync is not None:
            assert self.model is not None
            self.model = self._layer_sync.apply(self.model)
        super().setup(trainer)

    @property
    def handles_gradient_accumulation(self) -> bool:
        """False: Lightning calls the optimiser where a step ends, also with what is left at the end of an epoch."""
        return False

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Leave it to DeepSpeed, which is told in `backward`; its own `no_sync` refuses ZeRO stages 2 and 3."""
        yield

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Compute gradients, of a loss that Lightning has divided by the batches of a step already."""
        assert self.lightning_module is not None
        ends_step = not self.lightning_module.trainer.fit_loop._should_accumulate()
        self.deepspeed_engine.set_gradient_accumulation_boundary(ends_step)
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Build networks whole, also for ZeRO stage 3, which divides them when it takes them over.

        Lightning would divide each layer as soon as it exists. What a network does to its layers afterwards is lost
        then, without a word: TinyViT's own initialisation, pretrained weights, and the optimiser's groups by shape.
        """
        yield

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint's directory, each process its part; it gets its name when all parts are there."""
        path = Path(self.broadcast(filepath))
        if self.is_global_zero:
            shutil.rmtree(partial_directory(path), ignore_errors=True)
        self.barrier("checkpoint begins")
        super().save_checkpoint(checkpoint, partial_directory(path), storage_options)
        self.barrier("checkpoint is written")
        if self.is_global_zero:
            replace_directory(path)
        self.barrier("checkpoint has its name")

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint into the engine, each process its part.

        Raises:
            CheckpointError: It was written by another number of processes, among which the optimiser is divided; or it
                is damaged or of another architecture.
        """
        parts = len(list(Path(checkpoint_path).glob("checkpoint/*zero_pp_rank_*_optim_states.pt")))
        if parts not in (0, self.world_size):
            raise CheckpointError(
                checkpoint_path,
                f"was written by {parts} processes",
                f"{self.world_size} as in this run, since each has its part of the optimiser",
                f"Resume with {parts} processes; `pl-distill convert` makes one file of the student for any other use.",
            )
        try:
            return super().load_checkpoint(checkpoint_path, weights_only)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                checkpoint_path,
                f"cannot be loaded ({reason[:500]})",
                "a whole checkpoint of the same architecture",
                "Use the recipe that the run began with, or another checkpoint.",
            ) from error
