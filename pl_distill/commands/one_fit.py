"""One training at a time writes in a run's folder: a job that is submitted again may meet itself there, requeued."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datamodules.locks import held
from pl_distill.errors import ConfigError

LOCK = ".fit.lock"
PATIENCE_S = 60.0
"""How long the end of another is waited for: what loads batches for a killed training outlives it by seconds."""


@contextmanager
def alone_in(folder: Path, patience_s: float | None = None) -> Iterator[None]:
    """Hold the folder of a run: two trainings would write each other's checkpoints, events and state.

    Args:
        folder: Of the run; made if need be.
        patience_s: How long to wait for another training in it; by default `PATIENCE_S`.

    Raises:
        ConfigError: Another one goes on.
    """
    give_up = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
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
        time.sleep(1.0)


def _who(folder: Path) -> str:
    """Say what `run_state.json` knows of it."""
    try:
        state = json.loads((folder / "run_state.json").read_text(encoding="utf-8"))
        job = f", job {state['slurm']['job_id']}" if "slurm" in state else ""
        return f" (on {state['host']}{job}, step {state['step']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
