"""A measured figure with its goal, and how two things are timed against each other."""

import operator
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COMPARE = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Args:
        name: What was measured, with dots between the levels.
        value: The result.
        unit: Of the value; "ratio" has none.
        goal: A comparison and a number, ``>= 0.8``, or None where nothing was promised.
    """

    name: str
    value: float
    unit: str
    goal: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal was met; None without one."""
        if self.goal is None:
            return None
        sign, number = self.goal.split()
        return bool(COMPARE[sign](self.value, float(number)))

    def to_json(self) -> dict[str, Any]:
        """Return the figure as plain values."""
        return {"value": round(self.value, 4), "unit": self.unit, "goal": self.goal, "met": self.met}


def ratio_of_times(first: Callable[[], object], second: Callable[[], object], rounds: int = 5) -> float:
    """Run both in turn and return the median over rounds of time(first) / time(second); one unmeasured round before."""
    first(), second()
    return statistics.median(_seconds(first) / _seconds(second) for _ in range(rounds))


def median_ms(action: Callable[[], object], rounds: int) -> float:
    """Return the median time of one call in milliseconds, after one unmeasured call."""
    action()
    return 1000 * statistics.median(_seconds(action) for _ in range(rounds))


def median_cpu_ms(action: Callable[[], object], rounds: int) -> float:
    """Return the median time that one call computes, without what it waits for a core, after one unmeasured call."""
    action()
    return 1000 * statistics.median(_cpu_seconds(action) for _ in range(rounds))


def _cpu_seconds(action: Callable[[], object]) -> float:
    begin = time.process_time()
    action()
    return time.process_time() - begin


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin
