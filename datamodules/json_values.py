"""What a value that was read from JSON is."""

from typing import TypeGuard

LARGEST = 1e9  # of any number: pixels and seconds are below; nor infinity or NaN


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number below `LARGEST` in size; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST
