"""One training at a time writes in a run's folder: a job that is submitted again may meet itself there, requeued."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datamodules.locks import held
from pl_distill.errors import ConfigError

log = logging.getLogger(__name__)

LOCK = ".fit.lock"
PATIENCE_S = 60.0
"""How long the end of another is waited for: what loads batches for a killed training outlives it by seconds."""
STANDSTILL_S = 900.0
"""After how long a training that stands still ends itself, where `STANDSTILL_SECONDS` does not say: slurm/train.sbatch
gives that to the callback Standstill, which refuses what is no number of seconds before anybody waits here."""


@contextmanager
def alone_in(folder: Path, patience_s: float | None = None) -> Iterator[None]:
    """Hold the folder of a run: two trainings would write each other's checkpoints, events and state.

    Args:
        folder: Of the run; made if need be.
        patience_s: How long to wait for another training in it; by default `PATIENCE_S`, and for an earlier start of
            this SLURM job, which stands still on a node that SLURM has given up, until that has ended itself.

    Raises:
        ConfigError: Another one goes on.
    """
    patience = _patience(folder) if patience_s is None else patience_s
    give_up = time.monotonic() + patience
    is_told = False
    while True:
        with held(folder / LOCK, wait=False) as is_mine:
            if is_mine:
                yield
                return
        if time.monotonic() >= give_up:
            raise ConfigError(
                f"trainer.default_root_dir {folder}",
                f"is written by another training{_who(folder)}",
                "one at a time",
                "Wait for that one, end it, or give another --trainer.default_root_dir.",
            )
        if not is_told:
            log.warning("%s is written by another training%s: waiting %g s for its end", folder, _who(folder), patience)
            is_told = True
        time.sleep(1.0)


def _patience(folder: Path) -> float:
    """Seconds to wait for another training: longer for an earlier start of this job."""
    slurm = _state(folder).get("slurm")
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or not isinstance(slurm, dict) or slurm.get("job_id") != job:
        return PATIENCE_S
    return PATIENCE_S + float(os.environ.get("STANDSTILL_SECONDS") or STANDSTILL_S)


def _who(folder: Path) -> str:
    """Say what `run_state.json` knows of it."""
    state = _state(folder)
    try:
        job = f", job {state['slurm']['job_id']}" if "slurm" in state else ""
        return f" (on {state['host']}{job}, step {state['step']})"
    except (KeyError, TypeError):
        return ""


def _state(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / "run_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
