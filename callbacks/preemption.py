"""A job that is to lose its nodes saves at the end of a batch and leaves with an exit code that means: start me again.

Lightning's own requeue saves inside the signal handler, wherever each rank happens to be; the ranks then wait for each
other in different collectives (one of three trials hung). Its SIGTERM handler broadcasts, too. Here a signal only
leaves a mark, all ranks look at it at the same place, and the batch script asks SLURM for the requeue: inside a
container there is no scontrol.
"""

import logging
import os
import signal
from collections.abc import Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from datamodules.errors import UserError
from pl_distill.errors import ConfigError

log = logging.getLogger(__name__)

EXIT_REQUEUE = os.EX_TEMPFAIL  # 75: "temporary failure, try again later"


class Preempted(SystemExit):
    """Leaves the process with exit code 75 after a checkpoint was saved.

    Args:
        signal_name: What asked for it, such as ``SIGUSR1``.
        checkpoint: Where to go on from.
        step: Optimiser steps that are in it.
    """

    def __init__(self, signal_name: str, checkpoint: Path, step: int) -> None:
        super().__init__(EXIT_REQUEUE)
        self.signal_name = signal_name
        self.checkpoint = checkpoint
        self.step = step

    def __str__(self) -> str:
        return f"{self.signal_name}: saved step {self.step} to {self.checkpoint}, to be started again"


class Preemption(Checkpoint):
    """Save `checkpoints/last.ckpt` after a signal and leave with exit code 75; `--ckpt_path last` goes on from it.

    The signals are blocked, in this process and those that it starts, until the fit ends: neither a DataLoader's worker
    nor a library's thread dies of one. One that came before Python was up is not lost where the process was started by
    ``env --block-signal=USR1 --block-signal=TERM``, as slurm/train.sbatch does. After every optimiser step all ranks
    agree whether one of them was asked; where a validation follows they leave after it.

    It is a `Checkpoint` so that Lightning calls it after every callback that changes the weights.

    Args:
        signals: What asks for it. SLURM sends SIGTERM before it takes the nodes, and ahead of that, with
            ``#SBATCH --signal``, one of choice.

    Raises:
        ConfigError: A name is none of a signal that can be blocked.
    """

    def __init__(self, signals: Sequence[str] = ("SIGUSR1", "SIGTERM")) -> None:
        known = {one.name for one in signal.Signals} - {"SIGKILL", "SIGSTOP"}
        for name in signals:
            if name not in known:
                raise ConfigError("Preemption.signals", f"has {name!r}", "such as SIGUSR1 and SIGTERM", "Correct it.")
        self.signals = tuple(signal.Signals[name] for name in signals)
        self._received: signal.Signals | None = None
        self._leave: Preempted | None = None
        self._before: tuple[set[signal.Signals], dict[signal.Signals, Any]] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to listen.

        Raises:
            ConfigError: There is no `ModelCheckpoint`, whose folder the checkpoint goes to.
        """
        if stage == "fit":
            if not any(isinstance(one, ModelCheckpoint) for one in trainer.checkpoint_callbacks):
                fix = "Use one of configs/trainer, which have it."
                raise ConfigError("Preemption", "has no ModelCheckpoint beside it", "one, whose folder it uses", fix)
            self._received = self._leave = None
            self._listen()
            # The first worker that is spawned starts it, and it unblocks SIGTERM in whoever does so.
            resource_tracker.ensure_running()
            self._listen()

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM back: Lightning has just put a handler of its own there."""
        self._listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM back, also without a sanity check."""
        self._listen()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where a rank was asked, unless gradients are half accumulated, a validation follows or all is done."""
        loop = trainer.fit_loop.epoch_loop
        assert trainer.fit_loop._data_fetcher is not None
        if loop._should_accumulate() or loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            return
        self._save_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where a rank was asked before or during the validation."""
        if not trainer.sanity_checking:
            self._save_if_asked(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Leave: not at the end of the batch before, whose curves Lightning writes after its callbacks."""
        if self._leave is not None:
            raise self._leave

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave, where the batch before was the epoch's last."""
        if self._leave is not None:
            raise self._leave

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back as they were; one that came after the last batch has nothing left to ask for."""
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back after an error, but not where the process leaves as asked or says what is to be mended.

        SLURM ends what is left of a step when its first task has left. A rank that died of that signal would look like
        one that was killed, and the job would be started again.
        """
        if not isinstance(exception, Preempted | UserError):
            self._release()

    def _release(self) -> None:
        if self._before is not None:
            mask, handlers = self._before
            while signal.sigtimedwait(self.signals, 0) is not None:
                pass
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._before = None

    @property
    def asked(self) -> bool:
        """Whether this process has received one of the signals."""
        waiting = signal.sigtimedwait(self.signals, 0)  # takes it, too: it must not be delivered to anybody later
        if waiting is not None and self._received is None:
            self._received = signal.Signals(waiting.si_signo)
        return self._received is not None

    def _listen(self) -> None:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)
        # Threads that libraries have started before do not block it; the kernel may choose one of them.
        handlers = {one: signal.signal(one, self._note) for one in self.signals}
        if self._before is None:
            self._before = ({signal.Signals(one) for one in mask}, handlers)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)

    def _save_if_asked(self, trainer: Trainer) -> None:
        if self._leave is not None or 0 < trainer.max_steps <= trainer.global_step:
            return  # what is done needs no other start
        if not trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            return
        keeper = next(one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint))
        assert keeper.dirpath is not None
        path = Path(keeper.dirpath) / f"{keeper.CHECKPOINT_NAME_LAST}{keeper.FILE_EXTENSION}"
        trainer.save_checkpoint(path)  # ends with a barrier
        name = self._received.name if self._received is not None else "a signal to another process"
        self._leave = Preempted(name, path, trainer.global_step)
        rank_zero_info(str(self._leave))
