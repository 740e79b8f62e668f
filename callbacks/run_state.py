"""What a run is doing, in one small file that needs no reader of events: `run_state.json` in its folder."""

import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.preemption import Preempted
from datamodules.files import write_json

FILE = "run_state.json"
SCHEMA = 1
State = Literal["running", "requeued", "done", "failed"]


class RunState(Callback):
    """Write `run_state.json` into the trainer's `default_root_dir`.

    ``state`` is ``running``, ``requeued`` (saved after a signal, waits for its next start), ``done`` or ``failed`` (an
    error ended it: ``error``). A process that was killed cannot say so: ``running`` whose ``updated`` is older than a
    few of `every_seconds` is dead. ``step`` counts optimiser steps, ``starts`` how often the run was started.

    Args:
        every_seconds: How often a running process brings the file up to date.
    """

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._starts = 0
        self._has_begun = False
        self._written = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the start."""
        self._has_begun = True
        if trainer.is_global_zero:
            self._starts = read_starts(Path(trainer.default_root_dir)) + 1
            self._write(trainer, "running")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say which step it goes on from."""
        if trainer.is_global_zero:
            self._write(trainer, "running")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Bring the file up to date now and then."""
        self._keep_up(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Do so in a validation of the run, too, which may take minutes."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._keep_up(trainer)

    def _keep_up(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and time.monotonic() - self._written > self.every_seconds:
            self._write(trainer, "running")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say how a fit ended; with several processes each may be the one that fails."""
        if trainer.state.fn != TrainerFn.FITTING:  # a validation that fails says nothing of the run
            return
        if not self._has_begun and read_state(Path(trainer.default_root_dir)) == "done":
            return  # nor does a start that was refused say anything of a run that is finished
        if isinstance(exception, Preempted):
            if trainer.is_global_zero:
                asked = {"signal": exception.signal_name, "checkpoint": str(exception.checkpoint)}
                self._write(trainer, "requeued", **asked)
            return
        self._starts = self._starts or read_starts(Path(trainer.default_root_dir))
        text = str(exception).strip().splitlines()
        error = f"{type(exception).__name__}: {text[0]}" if text else type(exception).__name__
        self._write(trainer, "failed", error=error, process=trainer.global_rank)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that it is done."""
        if trainer.is_global_zero:
            self._write(trainer, "done")

    def _write(self, trainer: Trainer, state: State, **more: Any) -> None:
        self._written = time.monotonic()
        job = {
            name.removeprefix("SLURM_").lower(): os.environ[name]
            for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_NODELIST")
            if name in os.environ
        }
        content = {
            "schema": SCHEMA,
            "state": state,
            "step": trainer.global_step,
            "max_steps": trainer.max_steps,
            "starts": self._starts,
            "processes": trainer.world_size,
            "host": socket.gethostname(),
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            **more,
            **({"slurm": job} if job else {}),
        }
        write_json(Path(trainer.default_root_dir) / FILE, content)


def read_starts(folder: Path) -> int:
    """Return how often the run in `folder` was started before; 0 where no file tells."""
    try:
        return int(_read(folder)["starts"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def read_state(folder: Path) -> State | None:
    """Return how the run in `folder` stands; None where no file tells."""
    try:
        return cast(State, _read(folder)["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(folder: Path) -> Any:
    return json.loads((folder / FILE).read_text(encoding="utf-8"))
