"""A training run that stops in mid-epoch goes on with the batches that it has not seen.

Lightning 2.6 counts the consumed batches but leaves it to the loader to skip them; a plain `DataLoader` starts over
and trains on the wrong samples in silence. Six things decide where to start (each is held by a test): the count is
`batch_progress.current.processed` (`completed` is one behind in a checkpoint saved in `on_train_batch_end`); it holds
for the epoch of the checkpoint only; the sampler must know its epoch before the first ``iter``, because Lightning
starts the workers before it calls `set_epoch`; an epoch that begins with a restart has to be counted, and one that a
training's end cut short must not be; and a checkpoint of a validation is to be one of the batch before it, see below.
"""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from datamodules.errors import DataError, UserError
from datamodules.sampling import EpochSampler


class ResumeError(DataError):
    """A checkpoint from mid-epoch is resumed with data that are ordered in another way."""


def resume_point(trainer: Trainer) -> tuple[int, int]:
    """Return the epoch in which `trainer` is about to train and how many of its batches an earlier run consumed."""
    loop = trainer.fit_loop
    batch: Any = loop.epoch_loop.batch_progress  # Any: Lightning annotates both with a base class without these counts
    epoch: Any = loop.epoch_progress.current
    if loop.restarting:
        _take_back_the_end(batch, loop.epoch_progress)
    point = _point(trainer, batch, epoch)
    if loop.restarting and epoch.started > epoch.processed:
        _take_back_the_validation(batch)
    return point


def _point(trainer: Trainer, batch: Any, epoch: Any) -> tuple[int, int]:
    loop = trainer.fit_loop
    if not loop.restarting or epoch.started <= epoch.processed:  # a new run, or a checkpoint from the end of an epoch
        return int(epoch.processed), 0
    if batch.is_last_batch:  # saved after the last batch, before the epoch was counted; Lightning counts it on restart
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # is set at run time
        if not any(isinstance(one, _EpochBegins) for one in callbacks):
            callbacks.append(_EpochBegins())
        return int(epoch.processed) + 1, 0
    return int(epoch.processed), int(batch.current.processed)


def _take_back_the_end(batch: Any, epoch: Any) -> None:
    """Mend the counts of a checkpoint saved in `on_train_end`, from which a longer training goes on.

    Lightning counts the epoch that `max_steps` cut short as over, but keeps its batches, which it would skip in the
    next one; of an epoch that ended with the training, too.
    """
    if epoch.current.started != epoch.current.completed or batch.current.completed == 0:
        return
    if batch.is_last_batch:
        batch.reset_on_run()
        return
    for counts in (epoch.current, epoch.total):
        counts.processed -= 1
        counts.completed -= 1


def _take_back_the_validation(batch: Any) -> None:
    """Make a checkpoint saved in a validation one of the batch before it, in `on_train_batch_end`.

    Lightning goes on from one of a validation right only if one is due there in the resumed run as well. With another
    `val_check_interval` it would take a batch of the next epoch into the last, and count every step one too low.
    """
    if batch.current.completed == batch.current.processed > 0:
        batch.current.completed -= 1
        batch.total.completed -= 1


def check_workers(num_workers: int) -> None:
    """Refuse a negative number of workers.

    Raises:
        UserError: It is one.
    """
    if num_workers < 0:
        raise UserError("data.num_workers", f"is {num_workers}", "0 or more", "With 0 this process reads itself.")


def start_method(num_workers: int) -> str | None:
    """Return how a `DataLoader`'s workers start, its `multiprocessing_context`: as new processes.

    By default they are forks of a process in which gloo, autograd and TensorBoard have threads of their own. A lock
    that one of these holds at that moment stays locked in the worker for ever: it never gives a batch, and its rank and
    all others wait without a word. In Python 3.11.7 it is the interpreter's own list of threads
    (github.com/python/cpython/issues/112275); two ranks that were started again and again stood still once in a few
    hundred trainings. Not "forkserver", whose workers would outlive a rank that is killed: they watch the server.
    """
    return "spawn" if num_workers > 0 else None


class _EpochBegins(Callback):
    """Lets Lightning count, and announce, an epoch that begins with a restart after the last batch of the one before.

    Lightning counts the end of that epoch (`_FitLoop.reset`), but takes the next for one that has begun already. Its
    counts stay one apart, and a later checkpoint from mid-epoch looks like one from an epoch's end: a run that is
    stopped twice would train on the wrong samples.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop = trainer.fit_loop
        batches = loop.epoch_loop
        progress: Any = batches.batch_progress
        if loop.restarted_mid_epoch and batches.restarted_on_train_batch_end and progress.is_last_batch:
            # over is over, also where an epoch has more batches now: Lightning would skip those of before
            progress.current.completed = max(progress.current.completed, int(trainer.num_training_batches))
            loop.reset_restart_stage()


class ResumableDataLoader(DataLoader[Any]):
    """A `DataLoader` over an `EpochSampler` that puts the sampler's description into Lightning's checkpoints.

    Args:
        dataset: Map-style; its indices are the sampler's. It is sent to the workers, see `start_method`.
        sampler: Decides the order and the size of the batches.
        **options: As for `DataLoader`: workers, pinning, collation.

    Raises:
        UserError: The number of workers is negative.
    """

    def __init__(self, dataset: Dataset[Any], sampler: EpochSampler, **options: Any) -> None:
        workers = options.get("num_workers", 0)
        check_workers(workers)
        self.plan = sampler
        options = {"multiprocessing_context": start_method(workers), **options}
        super().__init__(dataset, batch_size=sampler.batch_size, sampler=sampler, **options)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must agree in."""
        return self.plan.describe()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare with the checkpoint's description.

        Raises:
            ResumeError: The epoch is half consumed and its rest cannot be told from this plan.
        """
        plan = self.plan.describe()
        differing = sorted(name for name in plan if state.get(name) != plan[name])
        if self.plan.consumed and differing:
            raise ResumeError(
                "the checkpoint to resume",
                "stops in mid-epoch of a run with " + ", ".join(f"{name} {state.get(name)}" for name in differing),
                ", ".join(f"{name} {plan[name]}" for name in differing) + " as in this run",
                "Resume with the old values, or start from a checkpoint saved at the end of an epoch.",
            )
