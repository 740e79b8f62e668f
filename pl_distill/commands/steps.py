"""A chain of long steps that remembers which are done, so that a second run reuses them and a killed one goes on."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datamodules.files import write_json
from pl_distill.errors import ConfigError
from pl_distill.evaluation.memory import peak_rss_bytes, reset_peaks

SCHEMA = 1


@dataclass(frozen=True)
class Done:
    """A finished step.

    Args:
        seconds: Wall time of the run that finished it; what a killed run spent before is not in it.
        peak_rss_bytes: Largest resident set of a process meanwhile, as far as it was told.
    """

    seconds: float
    peak_rss_bytes: int


class Steps:
    """Runs named steps in order and writes down each that is done.

    Args:
        log: JSON file of settings and finished steps, written before the first step begins.
        settings: What the steps depend on, as plain values.
        total: How many steps there will be.

    Raises:
        ConfigError: `log` belongs to a run with other settings, or cannot be read.
    """

    def __init__(self, log: Path, settings: dict[str, Any], total: int) -> None:
        self._log, self._settings, self._total = log, settings, total
        self._begun: set[str] = set()
        self._peak_of_others = 0
        self.done: dict[str, Done] = {}
        if log.exists():
            self.done = _read(log, settings)

    def run(self, name: str, title: str, product: Path, action: Callable[[], object]) -> None:
        """Do one step, or say that it is reused. Where it is done, so are all after it.

        Args:
            name: Key of the step, once in a run.
            title: What it does, for people.
            product: The file or folder that exists once it is done.
            action: Does it; must itself go on where a killed run stopped.

        Raises:
            ConfigError: The action ended without its product.
        """
        self._begun.add(name)
        head = f"[{len(self._begun)}/{self._total}] {title}"
        if name in self.done and product.exists():
            print(f"{head}: reused, {product} was made in {self.done[name].seconds:.0f} s", flush=True)
            return
        print(head, flush=True)
        # A product that a killed action leaves is not taken for a whole one, nor what later steps made of an older one.
        self.done = {key: done for key, done in self.done.items() if key in self._begun - {name}}
        self._write()  # what it leaves is of these settings
        reset_peaks()
        self._peak_of_others = 0
        begin = time.perf_counter()
        action()
        if not product.exists():
            fix = "Run the same command again; steps that are done are reused."
            raise ConfigError(product, f"is not there after the step {name!r}", "what the step makes", fix)
        peak = max(peak_rss_bytes(), self._peak_of_others)
        self.done[name] = Done(round(time.perf_counter() - begin, 2), peak)
        self._write()

    def note_peak(self, rss_bytes: int) -> None:
        """Tell the step in hand how large a process became that it had started."""
        self._peak_of_others = max(self._peak_of_others, rss_bytes)

    def _write(self) -> None:
        write_json(
            self._log,
            {
                "schema": SCHEMA,
                "settings": self._settings,
                "steps": {key: asdict(step) for key, step in self.done.items()},
            },
        )


def _read(log: Path, settings: dict[str, Any]) -> dict[str, Done]:
    fix = f"Give another --out, or delete {log.parent} to start anew."
    try:
        content = json.loads(log.read_text(encoding="utf-8"))
        found, steps = content["settings"], {name: Done(**step) for name, step in content["steps"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(log, f"cannot be read ({error})", "the log of an earlier run", fix) from error
    differing = [name for name in settings if found.get(name) != settings[name]]
    if differing:
        raise ConfigError(
            log,
            "is of a run with " + ", ".join(f"{name} {found.get(name)}" for name in differing),
            ", ".join(f"{name} {settings[name]}" for name in differing) + " as asked for now",
            fix,
        )
    return steps
