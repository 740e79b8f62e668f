from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from datamodules.errors import UserError
from datamodules.resumption import ResumableDataLoader, ResumeError, resume_point
from datamodules.sampling import EpochSampler

SHARDS = [5, 4, 5]  # 14 samples: 5 batches of 3 per epoch


class _Numbers(LightningDataModule):
    def __init__(self, workers: int = 0, batch_size: int = 3) -> None:
        super().__init__()
        self.workers = workers
        self.batch_size = batch_size

    def train_dataloader(self):
        sampler = EpochSampler(SHARDS, batch_size=self.batch_size, seed=1)
        sampler.resume(*resume_point(self.trainer))
        return ResumableDataLoader(torch.arange(sum(SHARDS)), sampler, num_workers=self.workers)

    def val_dataloader(self):
        return ResumableDataLoader(torch.arange(4), EpochSampler([4], batch_size=3, training=False))


class _Line(LightningModule):
    """Weights that depend on the order of the batches; remembers what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.line = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        self.seen.append(tuple(batch.tolist()))
        return (self.line(batch[:, None].float() / 14) - batch.float().cos()[:, None]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/mean", batch.float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


class _Crash(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyError("power cut")


class _AtTheEnd(Callback):
    """Saves as `ModelCheckpoint` and `LastCheckpoint` do when a training is over."""

    def on_train_end(self, trainer, module):
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "end.ckpt")


def _fit(folder: Path, *, callbacks=(), ckpt_path=None, workers=0, batch_size=3, epochs=3, **options) -> _Line:
    module = _Line()
    options = {"accelerator": "cpu", "devices": 1, "max_epochs": epochs, "logger": False, **options}
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder}
    trainer = Trainer(callbacks=list(callbacks), enable_checkpointing=any(callbacks), **options)
    trainer.fit(module, datamodule=_Numbers(workers, batch_size), ckpt_path=ckpt_path, weights_only=False)
    return module


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> _Line:
    return _fit(tmp_path_factory.mktemp("whole"))


# in epoch 0, at its end, in epoch 1, at its end; each worker takes seconds to start in each epoch
@pytest.mark.parametrize(("step", "workers"), [(3, 0), (5, 0), (7, 0), (10, 0), (7, 1)])
def test_a_run_that_dies_and_is_resumed_sees_the_rest_and_ends_with_the_same_weights(step, workers, whole, tmp_path):
    each_step = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(KeyError, match="power cut"):
        _fit(tmp_path, callbacks=[each_step, _Crash(step)], workers=workers)
    resumed = _fit(tmp_path, ckpt_path=tmp_path / f"step={step}.ckpt", workers=workers)
    assert resumed.seen == whole.seen[step:]
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("checks", [1.0, 2])  # validation at the end of the epoch, or within it
@pytest.mark.parametrize("on_epoch_end", [True, False])
def test_checkpoints_of_epoch_ends_and_of_validation_resume_too(on_epoch_end, checks, whole, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, save_on_train_epoch_end=on_epoch_end)
    assert _fit(tmp_path, callbacks=[keep], val_check_interval=checks).seen == whole.seen
    saved = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    assert len(saved) >= 3
    for path in saved[:-1]:
        resumed = _fit(tmp_path, ckpt_path=path, val_check_interval=checks)
        assert resumed.seen == whole.seen[int(path.stem.split("=")[1]) :]
        assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_a_run_stopped_by_max_steps_is_resumed_from_its_last_batch(whole, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    _fit(tmp_path, callbacks=[keep], max_steps=8)
    assert _fit(tmp_path, ckpt_path=tmp_path / "step=8.ckpt").seen == whole.seen[8:]


# epochs have 5 batches; a validation may come with the last step, or before it, or never
@pytest.mark.parametrize("every", [100, 5, 4])
@pytest.mark.parametrize("steps", [7, 9, 10])
def test_a_finished_training_that_is_made_longer_sees_what_it_has_not_seen(steps, every, tmp_path):
    options = {"val_check_interval": every, "check_val_every_n_epoch": None, "epochs": -1}
    whole = _fit(tmp_path / "whole", max_steps=20, **options)
    _fit(tmp_path, callbacks=[_AtTheEnd()], max_steps=steps, **options)
    longer = _fit(tmp_path, ckpt_path=tmp_path / "end.ckpt", max_steps=20, **options)
    assert longer.seen == whole.seen[steps:]
    assert all(torch.equal(a, b) for a, b in zip(longer.parameters(), whole.parameters(), strict=True))
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    crash = _Crash(steps + 1)
    with pytest.raises(KeyError, match="power cut"):
        _fit(tmp_path, callbacks=[keep, crash], ckpt_path=tmp_path / "end.ckpt", max_steps=20, **options)
    again = _fit(tmp_path, ckpt_path=tmp_path / f"step={steps + 1}.ckpt", max_steps=20, **options)
    assert again.seen == whole.seen[steps + 1 :]


@pytest.mark.parametrize(("every", "then"), [(5, 4), (5, 100), (10, 4), (3, 4), (4, 5), (5, 5)])
def test_a_run_may_be_validated_at_other_steps_after_a_checkpoint_of_a_validation(every, then, tmp_path):
    """Epochs have 5 batches; the steps are logged as they are made, too."""

    class Steps(Callback):
        def __init__(self) -> None:
            self.logged: list[tuple[int, int]] = []

        def on_train_batch_end(self, trainer, *_):
            self.logged.append((trainer.fit_loop.epoch_loop._batches_that_stepped, trainer.current_epoch))

    options = {"check_val_every_n_epoch": None, "epochs": -1, "max_steps": 15}
    keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, save_on_train_epoch_end=False)
    first = _fit(tmp_path, callbacks=[keep, whole := Steps()], val_check_interval=every, **options)
    resumed = _fit(
        tmp_path,
        callbacks=[rest := Steps()],
        ckpt_path=tmp_path / f"step={every}.ckpt",
        val_check_interval=then,
        **options,
    )
    assert resumed.seen == first.seen[every:]
    assert rest.logged == whole.logged[every:]
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), first.parameters(), strict=True))


def test_a_second_fit_without_a_checkpoint_begins_the_epoch_again(whole, tmp_path):
    crash = _Crash(3)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, callbacks=[crash], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = _Line()
    with pytest.raises(KeyError, match="power cut"):
        trainer.fit(module, datamodule=_Numbers())
    crash.step = -1
    trainer.fit(module, datamodule=_Numbers())
    assert module.seen == whole.seen[:3] + whole.seen[:5]


def test_epochs_cut_short_by_a_limit_resume_too(tmp_path):
    whole = _fit(tmp_path, limit_train_batches=3)
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    _fit(tmp_path, callbacks=[keep], limit_train_batches=3, max_steps=6)
    for step in (2, 3, 5, 6):
        resumed = _fit(tmp_path, ckpt_path=tmp_path / f"step={step}.ckpt", limit_train_batches=3)
        assert resumed.seen == whole.seen[step:]


@pytest.mark.parametrize("every", [4, 7])  # fewer and more than the five batches of an epoch
def test_runs_that_count_validation_in_steps_resume_too(every, whole, tmp_path):
    steps = {"val_check_interval": every, "check_val_every_n_epoch": None, "epochs": -1, "max_steps": 15}
    keep = ModelCheckpoint(tmp_path, filename="{step}", monitor="val/mean", save_top_k=-1)
    _fit(tmp_path, callbacks=[keep], **steps)
    saved = sorted(int(path.stem.split("=")[1]) for path in tmp_path.glob("*.ckpt"))
    assert saved == list(range(every, 15, every))
    for step in saved:
        resumed = _fit(tmp_path, ckpt_path=tmp_path / f"step={step}.ckpt", **steps)
        assert resumed.seen == whole.seen[step:]
        assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_accumulated_batches_are_counted_one_by_one(tmp_path):
    options = {"accumulate_grad_batches": 2}
    accumulated = _fit(tmp_path, **options)
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    _fit(tmp_path, callbacks=[keep], **options)
    for step, batches in ((1, 2), (2, 4), (3, 5), (4, 7)):  # the fifth batch of an epoch is a step of its own
        resumed = _fit(tmp_path, ckpt_path=tmp_path / f"step={step}.ckpt", **options)
        assert resumed.seen == accumulated.seen[batches:]
        assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), accumulated.parameters(), strict=True))


def test_another_batch_size_in_mid_epoch_is_refused_by_name(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    _fit(tmp_path, callbacks=[keep], epochs=1)
    with pytest.raises(ResumeError, match="batch_size 3, expected batch_size 2"):
        _fit(tmp_path, ckpt_path=tmp_path / "step=3.ckpt", batch_size=2)
    for size, batches in ((2, 7), (5, 3)):  # between epochs nothing is lost
        resumed = _fit(tmp_path, ckpt_path=tmp_path / "step=5.ckpt", batch_size=size, epochs=2)
        assert len(resumed.seen) == batches
        assert {number for batch in resumed.seen for number in batch} == set(range(14))


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(UserError, match=r"data\.num_workers: is -1, expected 0 or more"):
        ResumableDataLoader(torch.arange(4), EpochSampler([4], batch_size=2), num_workers=-1)


@pytest.mark.parametrize(("workers", "method"), [(0, None), (1, "spawn")])
def test_workers_are_no_forks_of_a_process_with_threads(workers, method):
    loader = ResumableDataLoader(torch.arange(4), EpochSampler([4], batch_size=2), num_workers=workers)
    context = loader.multiprocessing_context
    assert (context and context.get_start_method()) == method, "a fork may inherit a lock that nobody will open"
