"""A process that a test kills."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def python_process(*words: object, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start Python with these words and `Popen`'s options; killed at the end of the block, however it is left."""
    with subprocess.Popen([sys.executable, *map(str, words)], **options) as process:
        try:
            yield process
        finally:
            process.kill()
