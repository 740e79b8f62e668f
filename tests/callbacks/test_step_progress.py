import io
from contextlib import redirect_stderr, redirect_stdout

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from callbacks.step_progress import StepProgress


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        loss = self.line(batch).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.line(batch).mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, *, max_steps, ckpt_path=None, **options):
    """Return the bar as it was left, and what was printed."""
    progress = StepProgress()
    loader = torch.utils.data.DataLoader(torch.zeros(3, 1))  # three steps an epoch
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[progress, ModelCheckpoint(folder, save_last=True)],
        logger=False,
        enable_model_summary=False,
        **options,
    )
    printed = io.StringIO()
    with redirect_stderr(printed), redirect_stdout(printed):
        trainer.fit(Line(), loader, loader, ckpt_path=ckpt_path)
    return progress.train_progress_bar, printed.getvalue()


def test_one_bar_counts_the_steps_of_all_epochs(tmp_path):
    bar, printed = fit(tmp_path, max_steps=7)
    assert (bar.n, bar.total) == (7, 7)
    assert "7/7" in printed
    assert "Epoch" not in printed
    assert "train/loss" in printed
    assert "val/loss" in printed


def test_a_resumed_run_starts_where_it_stopped(tmp_path):
    fit(tmp_path, max_steps=4)
    bar, printed = fit(tmp_path, max_steps=7, ckpt_path=tmp_path / "last.ckpt")
    assert (bar.initial, bar.n, bar.total) == (4, 7, 7)
    assert "0/7" not in printed


def test_accumulated_batches_count_as_one_step(tmp_path):
    bar, _ = fit(tmp_path, max_steps=2, accumulate_grad_batches=3)
    assert (bar.n, bar.total) == (2, 2)


def test_a_run_that_counts_epochs_has_a_bar_without_an_end(tmp_path):
    bar, _ = fit(tmp_path, max_steps=-1, max_epochs=2)
    assert (bar.n, bar.total) == (6, None)
