"""What a pool knows of a camera's hours where another camera has the embeddings of its animals."""

import logging
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from pl_distill.reid.errors import PoolError
from pl_distill.reid.longitudinal import RecordWriter, Sighting
from pl_distill.reid.record_files import RECORD
from pl_distill.reid.recordings import require_new, session_of

NINE = datetime(2026, 3, 1, 9, 50, tzinfo=UTC)


@pytest.fixture
def watched(pool):
    """A camera's twenty minutes over the full hour, of which the pool holds nothing; gives the record."""
    record = pool.path / RECORD
    with RecordWriter(record, "cam", session=session_of(NINE)) as writer:
        for second in range(0, 1201):
            writer.observe(NINE.timestamp() + second, [Sighting("rosa", np.array((0, 0, 9, 9)), number=1)])
    return record


@pytest.mark.parametrize(("begin", "end"), [(5, 25), (-10, 5), (12, 14), (15, 60)])
def test_a_recording_of_hours_that_only_the_record_knows_is_refused(pool, watched, begin, end):
    started, ended = (NINE + timedelta(minutes=minutes) for minutes in (begin, end))
    with pytest.raises(PoolError, match="expected each moment of a camera once"):
        require_new(pool, watched, "cam", started, ended)
    require_new(pool, watched, "other", started, ended)


@pytest.mark.parametrize(("begin", "end"), [(20, 40), (-30, 0), (24 * 60, 25 * 60)])
def test_what_follows_or_goes_before_is_taken(pool, watched, begin, end):
    require_new(pool, watched, "cam", NINE + timedelta(minutes=begin), NINE + timedelta(minutes=end))


def test_a_camera_whose_clock_says_so_is_warned_of(pool, watched, caplog):
    with caplog.at_level(logging.WARNING):
        require_new(pool, watched, "cam", NINE + timedelta(minutes=5), None)
    assert "what it sees until then counts twice" in caplog.text
