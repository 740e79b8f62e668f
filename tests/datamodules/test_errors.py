import pickle
from pathlib import Path

import pytest

from datamodules import errors
from datamodules.errors import DataError, UserError

KINDS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, UserError)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_says_where_what_was_found_what_is_expected_and_what_to_do(kind):
    error = kind(Path("barn3/output.json"), "has 3 labels", "9 labels", "Label the rest.")
    assert str(error) == "barn3/output.json: has 3 labels, expected 9 labels. Label the rest."
    assert (error.where, error.found, error.expected, error.fix) == (
        *("barn3/output.json", "has 3 labels"),
        *("9 labels", "Label the rest."),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_errors_cross_process_borders_whole(kind):
    error = pickle.loads(pickle.dumps(kind("a", "is b", "c", "Do d.")))
    assert type(error) is kind
    assert str(error) == "a: is b, expected c. Do d."
    assert error.fix == "Do d."


def test_all_that_is_wrong_on_disk_is_a_data_error():
    assert len(KINDS) == 7
    assert [kind for kind in KINDS if not issubclass(kind, DataError)] == [UserError]
