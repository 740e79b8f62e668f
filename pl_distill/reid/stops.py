"""A stop that comes in the middle of a commit waits for its end."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stops_wait() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM do what they do after the block; in threads, which never hear them, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in _STOPS}
    for number, handler in handlers.items():
        if handler is not None:  # None: set by C code, and cannot be given back
            signal.signal(number, lambda which, frame: came.append((which, frame)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
        for which, frame in came[:1]:
            _answer(handlers[signal.Signals(which)], which, frame)


def _answer(handler: Callable[[int, FrameType | None], Any] | int | None, which: int, frame: FrameType | None) -> None:
    if callable(handler):
        handler(which, frame)
    else:  # the system's own answer, or none
        signal.raise_signal(which)
