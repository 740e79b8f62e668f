"""One process; two, with DDP and ZeRO, are in tests/smoke/test_deepspeed.py, a real SLURM in tests/slurm."""

import json
import multiprocessing
import signal
import subprocess
import sys
import time

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from callbacks.preemption import EXIT_REQUEUE, Preempted, Preemption
from callbacks.run_state import RunState
from datamodules.errors import UserError
from datamodules.resumption import ResumableDataLoader, resume_point
from datamodules.sampling import EpochSampler
from pl_distill.errors import ConfigError


@pytest.fixture(autouse=True)
def signals_as_they_were():
    """A process that is left by `Preempted` ends; here it goes on with other tests."""
    names = (signal.SIGUSR1, signal.SIGTERM)
    handlers, mask = [signal.getsignal(one) for one in names], signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
    for one, handler in zip(names, handlers, strict=True):
        signal.signal(one, signal.SIG_IGN)  # drops what is still waiting
        signal.signal(one, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class Numbers(LightningDataModule):
    """Fourteen numbers in five batches an epoch."""

    def __init__(self, workers=0):
        super().__init__()
        self.workers = workers

    def train_dataloader(self):
        sampler = EpochSampler([5, 4, 5], batch_size=3, seed=1)
        sampler.resume(*resume_point(self.trainer))
        return ResumableDataLoader(torch.arange(14), sampler, num_workers=self.workers)

    def val_dataloader(self):
        return ResumableDataLoader(torch.arange(4), EpochSampler([4], batch_size=3, training=False))


class Line(LightningModule):
    """Weights that depend on the order of the batches; remembers its batches and validations."""

    def __init__(self):
        super().__init__()
        self.seen, self.validated = [], []
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.line = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        self.seen.append(tuple(batch.tolist()))
        return (self.line(batch[:, None].float() / 14) - batch.float().cos()[:, None]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/mean", batch.float().mean())

    def on_validation_end(self):
        self.validated.append(self.trainer.global_step)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


class Ask(Callback):
    """Sends a signal at the start of a batch, counted from 0 over all epochs, or in a validation."""

    def __init__(self, batch=None, number=signal.SIGUSR1, step_of_validation=None):
        self.batch, self.number, self.step_of_validation = batch, number, step_of_validation

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        Ask.last = pl_module  # an exception leaves nothing else of a fit
        if len(pl_module.seen) == self.batch:
            signal.raise_signal(self.number)  # to this thread: another of the test runner's may not block it

    def on_validation_start(self, trainer, pl_module):
        if trainer.global_step == self.step_of_validation:
            signal.raise_signal(self.number)


def fit(folder, *more, resume=False, workers=0, **options):
    module = Line()
    keep = ModelCheckpoint(folder / "checkpoints", filename="best", monitor="val/mean", save_last=True)
    options = {"max_steps": 12, "val_check_interval": 4, "check_val_every_n_epoch": None, **options}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer = Trainer(
        accelerator="cpu", devices=1, callbacks=[Preemption(), keep, RunState(), *more], default_root_dir=folder,
        max_epochs=-1, **quiet, **options,
    )  # fmt: skip
    path = "last" if resume else None
    trainer.fit(module, datamodule=Numbers(workers), ckpt_path=path, weights_only=False)
    return module


def state(folder):
    return json.loads((folder / "run_state.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("whole"))


# the first, in mid-epoch, before a validation, an epoch's last; a worker takes seconds to start
@pytest.mark.parametrize(("batch", "workers"), [(0, 0), (1, 0), (3, 0), (4, 0), (7, 0), (9, 0), (1, 1)])
def test_a_training_that_is_asked_leaves_after_the_batch_and_goes_on_as_if_nothing_had_been(
    batch, workers, whole, tmp_path
):
    with pytest.raises(Preempted) as left:
        fit(tmp_path, Ask(batch), workers=workers)
    assert left.value.code == EXIT_REQUEUE == 75
    assert left.value.step == batch + 1
    assert state(tmp_path)["state"] == "requeued"
    assert state(tmp_path)["signal"] == "SIGUSR1"
    resumed = fit(tmp_path, resume=True, workers=workers)
    assert resumed.seen == whole.seen[batch + 1 :]
    assert resumed.validated == [step for step in whole.validated if step > batch + 1]
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))
    assert (state(tmp_path)["state"], state(tmp_path)["starts"], state(tmp_path)["step"]) == ("done", 2, 12)


def test_a_validation_that_is_due_comes_first(whole, tmp_path):
    with pytest.raises(Preempted) as left:
        fit(tmp_path, Ask(3))
    assert left.value.step == 4
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == 4
    assert fit(tmp_path, resume=True).seen == whole.seen[4:]


def test_a_signal_in_a_validation_is_answered_after_it(whole, tmp_path):
    with pytest.raises(Preempted) as left:
        fit(tmp_path, Ask(step_of_validation=8))
    assert left.value.step == 8
    resumed = fit(tmp_path, resume=True)
    assert resumed.seen == whole.seen[8:]
    assert resumed.validated == [12]


def test_half_accumulated_gradients_are_not_lost(tmp_path):
    options = {"accumulate_grad_batches": 2, "max_steps": 6}
    whole = fit(tmp_path / "whole", **options)
    with pytest.raises(Preempted) as left:
        fit(tmp_path / "left", Ask(2), **options)  # the first half of the second step
    assert left.value.step == 2
    resumed = fit(tmp_path / "left", resume=True, **options)
    assert resumed.seen == whole.seen[4:]
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_sigterm_is_answered_too(tmp_path):
    with pytest.raises(Preempted, match="SIGTERM: saved step 3"):
        fit(tmp_path, Ask(2, signal.SIGTERM))


def test_a_signal_after_the_last_step_changes_nothing(whole, tmp_path):
    assert fit(tmp_path, Ask(11)).seen == whole.seen
    assert state(tmp_path)["state"] == "done"


def test_a_signal_that_came_before_the_fit_is_waiting(tmp_path):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(Preempted) as left:
        fit(tmp_path)
    assert left.value.step == 1


class SignalChildren(Callback):
    """Sends SIGTERM to the loader's workers and to itself, as SLURM does to every process of a job."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if len(pl_module.seen) == 2:
            workers = multiprocessing.active_children()  # a test runner has other children, too
            assert workers
            for worker in workers:
                worker.terminate()
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.2)


def test_a_loaders_worker_does_not_die_of_the_signal(whole, tmp_path):
    with pytest.raises(Preempted):
        fit(tmp_path, SignalChildren(), workers=2)
    assert fit(tmp_path, resume=True).seen == whole.seen[3:]


def test_handlers_and_mask_are_given_back(tmp_path):
    handlers = {one: signal.getsignal(one) for one in (signal.SIGUSR1, signal.SIGTERM)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    fit(tmp_path)
    assert {one: signal.getsignal(one) for one in handlers} == handlers
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask


class Refuse(Callback):
    def __init__(self, error):
        self.error = error

    def on_train_batch_start(self, *_):
        raise self.error


def test_a_rank_that_says_what_is_to_be_mended_does_not_die_of_the_end_of_the_others(tmp_path):
    with pytest.raises(UserError):
        fit(tmp_path, Refuse(UserError("run", "diverged", "numbers", "Lower the rate.")))
    assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_after_any_other_error_the_signals_are_given_back(tmp_path):
    with pytest.raises(KeyError):
        fit(tmp_path, Refuse(KeyError("a defect")))
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_unknown_signals_and_a_missing_checkpoint_callback_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="'SIGKILL'"):
        Preemption(["SIGKILL"])
    trainer = Trainer(accelerator="cpu", callbacks=[Preemption()], logger=False, max_steps=1)
    with pytest.raises(ConfigError, match="no ModelCheckpoint"):
        trainer.fit(Line(), datamodule=Numbers())


def test_the_state_of_a_run_that_fails_names_the_error(tmp_path):
    class Fail(Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            if trainer.global_step == 2:
                raise ValueError("the disk is full\nand more")

    with pytest.raises(ValueError, match="disk"):
        fit(tmp_path, Fail())
    found = state(tmp_path)
    assert (found["state"], found["step"], found["error"]) == ("failed", 2, "ValueError: the disk is full")


def test_a_process_that_leaves_has_the_exit_code(tmp_path):
    code = "from pathlib import Path; from callbacks.preemption import Preempted; raise Preempted('SIGUSR1', Path(), 1)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 75


@pytest.mark.parametrize("every", [4, 5])  # five batches make an epoch: validations within it, or after its last
def test_a_training_that_is_asked_after_every_single_batch_sees_what_it_would_have_seen(every, tmp_path):
    whole = fit(tmp_path / "whole", val_check_interval=every)
    seen, validated = [], []
    for start in range(11):
        with pytest.raises(Preempted) as left:
            fit(tmp_path / "left", Ask(0), resume=start > 0, val_check_interval=every)
        assert left.value.step == start + 1
        seen += Ask.last.seen
        validated += Ask.last.validated
    module = fit(tmp_path / "left", resume=True, val_check_interval=every)
    assert seen + module.seen == whole.seen
    assert validated + module.validated == whole.validated
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), whole.parameters(), strict=True))


def test_a_run_in_a_long_validation_is_known_to_be_alive(tmp_path):
    """`running` that is older than a few half minutes is taken for dead."""
    seen = []

    class Look(Callback):
        def on_validation_batch_start(self, *_):
            seen.append((tmp_path / "run_state.json").stat().st_mtime_ns)

    fit(tmp_path, RunState(every_seconds=0.0), Look(), max_steps=4)
    assert len(seen) > 1
    assert seen == sorted(set(seen))


def test_a_start_that_is_refused_leaves_a_finished_run_done(tmp_path):
    class Refused(Callback):
        def setup(self, *_, **__):
            raise UserError("data", "are gone", "data", "Give others.")

    with pytest.raises(UserError):
        fit(tmp_path, Refused())
    assert (state(tmp_path)["state"], state(tmp_path)["starts"]) == ("failed", 0)
    fit(tmp_path, max_steps=4)
    before = state(tmp_path)
    with pytest.raises(UserError):
        fit(tmp_path, Refused())
    assert state(tmp_path) == before
    assert before["state"] == "done"
