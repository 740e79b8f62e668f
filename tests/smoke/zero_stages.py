"""Two processes train with one strategy after another: left alone, and asked to leave in mid-epoch and started again.

Run by tests/smoke/test_deepspeed.py: python -m torch.distributed.run --nproc_per_node=2 zero_stages.py OUT OPTIONS...
Starting Python twice for each of eight trainings would take minutes.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback

from callbacks.batchnorm_agreement import statistics
from callbacks.preemption import Preempted
from pl_distill.commands.lightning import run_lightning

STRATEGIES = {
    "zero1": ["--config", "trainer/deepspeed_stage2.yaml", "--trainer.strategy.init_args.stage=1"],
    "zero2": ["--config", "trainer/deepspeed_stage2.yaml"],
    "zero3": ["--config", "trainer/deepspeed_stage3.yaml"],
    "ddp": ["--config", "trainer/ddp.yaml", "--trainer.precision=32-true"],
}
SMALL = [
    "--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.sync_batchnorm=false", "--trainer.max_steps=6",
    "--trainer.val_check_interval=2", "--trainer.num_sanity_val_steps=0", "--trainer.log_every_n_steps=1",
    "--data.batch_size=1", "--data.num_workers=0", "--trainer.enable_model_summary=false",
    "--model.gradient_norms_every=0",
    "--trainer.limit_val_batches=1",
]  # fmt: skip
LEAVE_AT = 3  # four batches of one frame for each process make an epoch


class Ask(Callback):
    """Sends this process SIGUSR1 in the middle of a step, as SLURM does to one task before the other."""

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_step == LEAVE_AT - 1:
            os.kill(os.getpid(), signal.SIGUSR1)


def fit(name, folder, options, *more):
    words = ["fit", "--config", "distill/pen.yaml", *STRATEGIES[name], *SMALL, *options]
    words += ["--trainer.callbacks+", "callbacks.preemption.Preemption", "--ckpt_path=last"]
    words += ["--trainer.callbacks+", "callbacks.scaling.Scaling", "--trainer.callbacks.every_n_steps=2"]
    return run_lightning([*words, f"--trainer.default_root_dir={folder}", *more])


def train(name, out, options, rank):
    alone = fit(name, out / name / "alone", options)
    ask = ["--trainer.callbacks+", "zero_stages.Ask"] if rank == 1 else []
    try:
        fit(name, out / name / "left", options, *ask)
    except Preempted as left:
        step = left.step
    resumed = fit(name, out / name / "left", options)
    mine, others = (torch.cat([one.flatten() for one in statistics(run.model)]) for run in (alone, resumed))
    return {
        "left_at": step,
        "exit_code": left_code(),
        "val_loss": [run.trainer.callback_metrics["val/loss"].item() for run in (alone, resumed)],
        "straggler_ratio": alone.trainer.callback_metrics["perf/straggler_ratio"].item(),
        "statistics_equal": torch.equal(mine, others),
        "statistics": mine.double().sum().item(),
    }


def left_code():
    return Preempted("", Path(), 0).code


if __name__ == "__main__":
    out, names, options = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
    rank = int(os.environ["RANK"])
    for name in names:
        found = train(name, out, options, rank)
        (out / f"{name}-{rank}.json").write_text(json.dumps(found))
