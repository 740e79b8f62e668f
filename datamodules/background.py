"""Work that another thread does, with a bounded queue before it: a slow consumer makes the producer wait."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundQueue(Generic[T]):
    """Hands items to a thread, in order; at most `size` of them wait.

    An error of the thread comes out of the next `put` or `drain`; from then on items are dropped, so that nobody waits
    for a thread that has given up.

    Args:
        consume: Called in the thread with each item.
        size: Items that may wait.
        name: Of the thread.
    """

    def __init__(self, consume: Callable[[T], None], *, size: int, name: str) -> None:
        self._consume = consume
        self._items: queue.Queue[T | None] = queue.Queue(size)  # None: the end
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)  # must not keep a dying process
        self._thread.start()

    def put(self, item: T) -> None:
        """Add an item; waits while the queue is full.

        Raises:
            BaseException: What the thread has raised since.
        """
        self._raise()
        self._items.put(item)

    def drain(self) -> None:
        """Wait until every item is done.

        Raises:
            BaseException: What the thread has raised since.
        """
        self._items.join()
        self._raise()

    def close(self) -> None:
        """Let the thread finish what waits, and end it; never raises what the thread has raised."""
        if self._thread.is_alive():
            self._items.put(None)
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            try:
                if self._error is None:
                    self._consume(item)
            except BaseException as error:
                self._error = error
            finally:
                del item  # or it stays alive, and in memory, until the next one comes
                self._items.task_done()
        self._items.task_done()
