"""What happens during a long run, into a file with its time, and what matters above the progress bar."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

PACKAGES = ("datamodules", "pl_distill")


class _AboveTheBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


@contextmanager
def events_to(path: Path) -> Iterator[None]:
    """Write the events of our packages to `path`, and warnings to the terminal, while the block runs."""
    file = logging.FileHandler(path, mode="w", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal = _AboveTheBar(logging.WARNING)
    loggers = [logging.getLogger(name) for name in PACKAGES]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.INFO)
        one.addHandler(file)
        one.addHandler(terminal)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.removeHandler(file)
            one.removeHandler(terminal)
            one.setLevel(level)
        file.close()
