import pytest

from datamodules.json_values import is_number


@pytest.mark.parametrize("value", [0, -1.5, 999_999_999])
def test_a_number_is_one(value):
    assert is_number(value)


@pytest.mark.parametrize("value", [True, None, "1", [1], 1e9, -1e9, float("inf"), float("nan")])
def test_what_nobody_writes_as_a_number_is_none(value):
    assert not is_number(value)
