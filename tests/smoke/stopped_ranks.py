"""Two ranks are stopped at every place of a training where a signal may come, and started again.

Run by tests/smoke/test_stopped_ranks.py: python -m torch.distributed.run --nproc_per_node=2 stopped_ranks.py OUT
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from callbacks.preemption import Preempted, Preemption
from callbacks.standstill import Standstill
from datamodules.resumption import ResumableDataLoader, resume_point
from datamodules.sampling import EpochSampler

STEPS, EVERY = 9, 3  # of the training, which has four steps an epoch; of which a validation follows
PLACES = [("batch", step) for step in range(STEPS - 1)]
PLACES += [(place, step) for place in ("backward", "validation", "save") for step in (EVERY, 2 * EVERY)]
READ_BY_WORKERS = ("batch", 7)  # an epoch's last; each worker takes seconds to start


class Numbers(LightningDataModule):
    """Sixteen numbers in four batches an epoch and rank."""

    def __init__(self, workers):
        super().__init__()
        self.workers = workers

    def loader(self, numbers, *, training):
        sampler = EpochSampler(
            [len(numbers) // 2] * 2,
            batch_size=2,
            rank=self.trainer.global_rank,
            ranks=self.trainer.world_size,
            training=training,
        )
        if training:
            sampler.resume(*resume_point(self.trainer))
        return ResumableDataLoader(numbers, sampler, num_workers=self.workers, persistent_workers=self.workers > 0)

    def train_dataloader(self):
        return self.loader(torch.arange(16), training=True)

    def val_dataloader(self):
        return self.loader(torch.arange(8), training=False)


class Line(LightningModule):
    """Weights that depend on the order of the batches."""

    def __init__(self):
        super().__init__()
        self.seen = []
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.line = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.tolist())
        return (self.line(batch[:, None].float() / 16) - batch.float().cos()[:, None]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/mean", self.line(batch[:, None].float()).mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


class Ask(Callback):
    """Sends one of the ranks SIGUSR1 at a place, when so many steps have been made; the other has none."""

    def __init__(self, place, step):
        self.place, self.step, self.rank = place, step, step % 2

    def ask(self, trainer, place):
        if (place, trainer.global_step, trainer.global_rank) == (self.place, self.step, self.rank):
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        Ask.last = pl_module  # an exception leaves nothing else of a fit
        self.ask(trainer, "batch")

    def on_before_backward(self, trainer, pl_module, loss):
        self.ask(trainer, "backward")

    def on_validation_start(self, trainer, pl_module):
        self.ask(trainer, "validation")

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.ask(trainer, "save")


def fit(folder, *more, workers=0):
    keep = ModelCheckpoint(folder, "best", "val/mean", save_last=True, enable_version_counter=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        callbacks=[Preemption(), keep, Standstill(120), *more],
        max_steps=STEPS,
        max_epochs=-1,
        val_check_interval=EVERY,
        check_val_every_n_epoch=None,
        default_root_dir=folder,
        use_distributed_sampler=False,
        **quiet,
    )
    module = Line()
    trainer.fit(module, datamodule=Numbers(workers), ckpt_path="last", weights_only=False)
    return module


def stopped(folder, place, step, whole):
    """What a training that is stopped there has in common with one left alone."""
    workers = int((place, step) == READ_BY_WORKERS)
    try:
        fit(folder, Ask(place, step), workers=workers)
        raise RuntimeError(f"nobody has heard the signal in {place} {step}")
    except Preempted as left:
        before, left_at = Ask.last.seen, left.step
    resumed = fit(folder, workers=workers)
    same = all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))
    return {"left_at": left_at, "seen": before + resumed.seen == whole.seen, "weights": same}


if __name__ == "__main__":
    out, rank = Path(sys.argv[1]), os.environ["RANK"]
    whole = fit(out / "whole")
    found = {}
    for place, step in PLACES:
        found[f"{place} {step}"] = stopped(out / f"{place}-{step}", place, step, whole)
    (out / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()  # one left to the interpreter's end has once aborted it
