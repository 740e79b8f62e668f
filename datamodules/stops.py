"""A stop that comes in the middle of something that must be done whole waits for its end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stops_wait() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM do what they do after the block; in threads, which never hear them, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in _STOPS}
    heard = {  # not one that is ignored, nor one that C code has set, which could not be given back
        number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)
    }
    for number in heard:
        signal.signal(number, lambda which, frame: came.append(which))
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
