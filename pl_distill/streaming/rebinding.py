"""Run a function of another module with some of its module's names replaced, leaving that module as it is.

A patched module would change every model of the process, and the comparison with the original would compare it to
itself.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any


def rebound(function: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    """Return a copy of a Python function that sees `names` where it would see its module's.

    Args:
        function: A plain function or method, not wrapped by a decorator.
        names: What it sees instead; each must be a name that it uses.

    Raises:
        TypeError: It is no plain function, or does not use one of the names: the library has changed.
    """
    if not isinstance(function, FunctionType):
        raise TypeError(f"{function!r} is no plain Python function")
    unused = set(names) - set(function.__code__.co_names)
    if unused:
        raise TypeError(f"{function.__qualname__} does not use {', '.join(sorted(unused))}")
    twin = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    twin.__qualname__, twin.__doc__ = function.__qualname__, function.__doc__
    return twin
