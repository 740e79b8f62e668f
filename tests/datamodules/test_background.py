import gc
import threading
import time
import weakref

import numpy as np
import pytest

from datamodules.background import BackgroundQueue


def _queue(consume, size=2):
    return BackgroundQueue(consume, size=size, name="test")


def test_items_are_done_in_order_by_another_thread():
    done = []
    queue = _queue(lambda item: done.append((item, threading.current_thread().name)))
    for number in range(20):
        queue.put(number)
    queue.drain()
    assert done == [(number, "test") for number in range(20)]
    queue.close()
    assert not any(thread.name == "test" for thread in threading.enumerate())


def test_a_slow_consumer_makes_the_producer_wait_and_memory_stays_flat():
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def consume(item):
        time.sleep(0.005)

    queue = _queue(consume, size=3)
    for _ in range(30):
        item = np.zeros(1_000_000, np.uint8)
        alive.append(weakref.ref(item))
        queue.put(item)
        del item
        most = max(most, sum(one() is not None for one in alive))
    queue.drain()
    gc.collect()
    assert most <= 3 + 1  # in the queue, and in the thread's hand
    assert not any(one() is not None for one in alive)  # nor does the thread hold on to the last
    queue.close()


def test_an_error_of_the_thread_comes_out_of_the_next_call_and_nobody_waits_for_ever():
    done = []

    def consume(item):
        done.append(item)
        if item == 2:
            raise OSError("disk full")

    queue = _queue(consume, size=1)

    def produce():
        for number in range(100):
            queue.put(number)

    with pytest.raises(OSError, match="disk full"):
        produce()
    with pytest.raises(OSError, match="disk full"):
        queue.drain()
    queue.close()  # silent: whoever closes has seen the error, or has one of its own
    assert done == [0, 1, 2]


def test_closing_finishes_what_waits_and_may_be_repeated():
    done = []
    queue = _queue(lambda item: (time.sleep(0.01), done.append(item)), size=5)
    for number in range(5):
        queue.put(number)
    queue.close()
    queue.close()
    assert done == [0, 1, 2, 3, 4]
