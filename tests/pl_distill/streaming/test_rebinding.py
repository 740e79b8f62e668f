import math

import pytest

from pl_distill.streaming.rebinding import rebound


def area(radius, *, scale=2):
    return scale * math.pi * radius


def test_the_copy_sees_the_new_name_and_the_original_does_not():
    class Flat:
        pi = 3

    assert rebound(area, math=Flat)(1) == 6
    assert area(1) == 2 * math.pi


def test_a_name_that_the_function_does_not_use_is_refused():
    with pytest.raises(TypeError, match="area does not use cmath"):
        rebound(area, cmath=None)


def test_only_plain_functions_can_be_copied():
    with pytest.raises(TypeError, match="no plain Python function"):
        rebound(math.sqrt, pi=3)
