import pytest
from hypothesis import given
from hypothesis import strategies as st

from pl_distill.modules.schedules import warmup_cosine


def test_the_schedule_by_hand():
    values = [warmup_cosine(step, total=6, warmup=1 / 3, final=0.2) for step in (0, 1, 2, 4, 6, 7)]
    assert values == pytest.approx([0.5, 1.0, 1.0, 0.6, 0.2, 0.2])


@given(st.integers(1, 500), st.floats(0, 1), st.floats(0, 1))
def test_the_schedule_stays_between_its_ends(total, warmup, final):
    values = [warmup_cosine(step, total, warmup, final) for step in range(total + 1)]
    assert all(0 < value <= 1 + 1e-12 or value == final for value in values)
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert all(a >= b - 1e-12 for a, b in zip(values[peak:], values[peak + 1 :], strict=False))
