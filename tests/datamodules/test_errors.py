import pickle
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

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


class Broken(Dataset):
    """Raises its error for the only sample, below another one."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise KeyError(index)
        except KeyError as error:
            raise self.error from error


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]])
def test_an_error_in_a_loaders_worker_keeps_kind_and_message(kind):
    error = kind("a.tar", "is not YAML (line 3:\n  'b')", "c", "Do d.")
    with pytest.raises(UserError) as caught:
        next(iter(DataLoader(Broken(error), num_workers=1)))
    assert type(caught.value) is kind
    assert str(caught.value) == str(error)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(error)


def test_all_that_is_wrong_on_disk_is_a_data_error():
    assert len(KINDS) == 7
    assert [kind for kind in KINDS if not issubclass(kind, DataError)] == [UserError]
