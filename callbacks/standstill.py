"""A process that makes no progress says where it stands and dies, so that its job is started again.

A rank that waits for one that never comes, a loader whose worker hangs, a disk that does not answer: none of these
raises an error. NCCL gives up after ten minutes and gloo after thirty, but in collectives only, and gloo with an error
that looks like one of ours; a job that stands still costs its nodes until its time limit.
"""

import faulthandler
import signal
import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.preemption import Preempted
from pl_distill.errors import ConfigError


class Standstill(Callback):
    """End the process where a fit has done nothing for `limit_s`: the stacks of its threads on stderr, then SIGALRM.

    Something is done when a batch ends, in training or validation, and when a phase begins or ends; the limit must be
    longer than a start, a compilation or a save takes. The kernel counts the time and ends the process, and what prints
    the stacks runs in the signal's handler: it works where the interpreter itself waits. slurm/job.sh takes the exit
    code (142) as that of a killed task, and the run goes on from its last checkpoint.

    Args:
        limit_s: Seconds without progress.

    Raises:
        ConfigError: The limit is not positive.
    """

    def __init__(self, limit_s: float = 900.0) -> None:
        if limit_s <= 0:
            raise ConfigError("Standstill.limit_s", f"is {limit_s}", "a positive number of seconds", "Correct it.")
        self.limit_s = limit_s
        self._counting = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to count."""
        if stage == "fit":
            faulthandler.unregister(signal.SIGALRM)  # a fit before this one has reset the signal behind its back
            faulthandler.register(signal.SIGALRM, sys.__stderr__ or 2, all_threads=True, chain=True)
            self._counting = True
            self._moved()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count anew."""
        self._moved()

    def on_train_batch_end(self, *_: Any) -> None:
        """Count anew."""
        self._moved()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count anew."""
        self._moved()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Count anew."""
        self._moved()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count anew."""
        self._moved()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count anew: the last checkpoint may be written now."""
        self._moved()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop counting."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop counting, except in a process that leaves after a signal: it may stand still on its way out."""
        if not isinstance(exception, Preempted):
            self._stop()

    def _moved(self) -> None:
        if self._counting:  # a validation without a fit goes by here, too
            signal.setitimer(signal.ITIMER_REAL, self.limit_s)

    def _stop(self) -> None:
        if self._counting:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.unregister(signal.SIGALRM)
            self._counting = False
