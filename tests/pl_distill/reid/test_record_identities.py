"""Rows of the record under the names that their tracks have in the pool, whatever was merged, split or undone."""

import logging
import threading
from datetime import UTC, date, datetime

import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest

from pl_distill.reid import record_identities
from pl_distill.reid.identities import link, merge, split, undo
from pl_distill.reid.longitudinal import RecordWriter, Sighting
from pl_distill.reid.pen_map import PenMap
from pl_distill.reid.record_files import HOURS, RECORD, RecordError, alone_with, day_file, read_hours
from pl_distill.reid.record_identities import follow_identities
from pl_distill.reid.record_schema import ORIGIN

NINE = datetime(2026, 3, 1, 9, tzinfo=UTC).timestamp()
DAY = 86_400.0
BOX = np.array((0, 0, 10, 10), np.float32)


@pytest.fixture
def herd(pool, sample):
    """Rosa has the tracks 0 and 1, emma 2; the tracker calls them alike."""
    pool.append([sample(NINE, number) for number in range(3)])
    link(pool, [0, 1], "rosa")
    link(pool, [2], "emma")
    return pool


@pytest.fixture
def record(pool):
    return pool.path / RECORD


def watch(pool, seconds, start=NINE, session="s"):
    """Track a camera's animals for some seconds each; they have the names of the pool, as in `PoolSink`."""
    with RecordWriter(pool.path / RECORD, "cam", session=session) as writer:
        for second in range(max(seconds.values()) + 1):
            seen = [number for number, length in seconds.items() if second <= length]
            names = {number: pool.animal_of(pool.find_track("cam", session, number)) for number in seen}
            sightings = [Sighting(names[number], BOX, "sleep", None, number) for number in seen]
            writer.observe(start + second, sightings)


def rows(record):
    hours = read_hours(record)
    columns = (hours["hour"].dt.hour, hours["animal"], hours["nearest"].fillna("nobody"), hours["sleep_s"])
    return list(zip(*columns, strict=True))


def test_rows_follow_a_merge_and_a_renaming_and_come_back_when_they_are_undone(herd, record):
    watch(herd, {0: 30, 2: 10})
    path = day_file(record, "cam", date(2026, 3, 1))
    before = pq.read_table(path, partitioning=None)
    events = [merge(herd, "emma", into="rosa")]
    assert follow_identities(record, herd) == 1
    assert rows(record) == [(9, "rosa", "nobody", 10), (9, "rosa", "nobody", 30)]  # nobody is near itself
    events.append(merge(herd, "rosa", into="sow-17"))
    follow_identities(record, herd)
    assert {row[1:3] for row in rows(record)} == {("sow-17", "nobody")}
    assert follow_identities(record, herd) == 0
    for event in reversed(events):
        undo(herd, event)
    assert follow_identities(record, herd) == 1
    after = pq.read_table(path, partitioning=None)
    assert after.equals(before)
    assert after.schema.equals(before.schema, check_metadata=True)


def test_others_read_the_names_that_the_pool_has(herd, record):
    watch(herd, {0: 30, 2: 10})
    merge(herd, "emma", into="rosa")
    follow_identities(record, herd)
    pattern = str(record / "hours" / "*" / "*.parquet")
    assert duckdb.sql(f"SELECT animal, sum(sleep_s) FROM '{pattern}' GROUP BY 1").fetchall() == [("rosa", 40.0)]
    assert pd.read_parquet(record / "hours").groupby("animal")["sleep_s"].sum().to_dict() == {"rosa": 40}
    assert polars.read_parquet(pattern)["animal"].unique().to_list() == ["rosa"]


def test_an_hour_goes_on_after_a_renaming_and_all_of_it_has_the_old_name_when_that_is_undone(herd, record, sample):
    watch(herd, {0: 30})
    event = merge(herd, "rosa", into="sow-17")
    follow_identities(record, herd)
    herd.append([sample(NINE, 7, session="later")])
    link(herd, [3], "sow-17")
    watch(herd, {7: 5}, NINE + 60, "later")
    watch(herd, {7: 5}, NINE + 90, "later")  # taken up
    assert rows(record) == [(9, "sow-17", "nobody", 30), (9, "sow-17", "nobody", 10)]
    undo(herd, event)
    follow_identities(record, herd)
    assert rows(record) == [(9, "rosa", "nobody", 30), (9, "rosa", "nobody", 10)]
    watch(herd, {1: 5}, NINE + 120)
    assert sum(row[3] for row in rows(record)) == 45
    assert {row[1] for row in rows(record)} == {"rosa"}


def test_after_a_split_an_hour_belongs_to_whose_tracks_were_seen_for_longest_in_it(herd, record):
    watch(herd, {0: 9})
    watch(herd, {1: 9}, NINE + 3600)
    for start, seconds in ((7200, {0: 20, 1: 0}), (7300, {1: 5})):
        watch(herd, seconds, NINE + start)
    event = split(herd, [1], "lisa")
    follow_identities(record, herd)
    assert [row[:2] for row in rows(record)] == [(9, "rosa"), (10, "lisa"), (11, "rosa")]
    undo(herd, event)
    follow_identities(record, herd)
    assert {row[1] for row in rows(record)} == {"rosa"}


def test_a_restart_goes_on_with_no_hour_that_became_anothers(herd, record, sample):
    watch(herd, {0: 20})
    event = split(herd, [0], "lisa")
    follow_identities(record, herd)
    herd.append([sample(NINE + 60, 0, session="later")])
    link(herd, [3], "rosa")
    watch(herd, {0: 30}, NINE + 60, "later")
    assert rows(record) == [(9, "lisa", "nobody", 20), (9, "rosa", "nobody", 30)]
    undo(herd, event)
    follow_identities(record, herd)
    watch(herd, {0: 5}, NINE + 120, "later")  # of two rows under its name it goes on with one
    assert sorted(row[1:] for row in rows(record)) in (
        [("rosa", "nobody", 20), ("rosa", "nobody", 35)],
        [("rosa", "nobody", 25), ("rosa", "nobody", 30)],
    )


def test_the_seconds_of_a_named_animal_do_not_wait_for_a_nameless_track(herd, record):
    merge(herd, "emma", into="rosa")
    watch(herd, {0: 10})
    watch(herd, {2: 20}, NINE + 60)
    assert rows(record) == [(9, "rosa", "nobody", 30)]
    for event in (2, 1):
        undo(herd, event)
    follow_identities(record, herd)
    assert rows(record) == [(9, "rosa", "nobody", 30)]


def test_a_row_whose_track_lost_its_name_waits_for_another(herd, record):
    watch(herd, {0: 9, 2: 9})
    undo(herd, 1)
    follow_identities(record, herd)
    assert rows(record) == [(9, "rosa", "nobody", 9)]
    split(herd, [2], "lisa")
    follow_identities(record, herd)
    assert rows(record) == [(9, "lisa", "rosa", 9), (9, "rosa", "lisa", 9)]


def test_nobody_with_a_name_is_an_error_that_says_so(herd, record):
    watch(herd, {2: 9})
    undo(herd, 1)
    follow_identities(record, herd)
    with pytest.raises(RecordError, match="no row of an animal with a name"):
        read_hours(record)


def test_a_kill_between_two_days_leaves_each_whole_and_the_next_call_ends_it(herd, record, monkeypatch):
    for day in range(2):
        watch(herd, {0: 30, 2: 10}, NINE + DAY * day)
    first, second = (day_file(record, "cam", date(2026, 3, day)) for day in (1, 2))
    before = second.read_bytes()
    merge(herd, "emma", into="rosa")
    written = pq.write_table

    def die_at_the_second(table, where, **options):
        written(table, where, **options)
        if second.name in where.name:
            raise KeyboardInterrupt

    monkeypatch.setattr(record_identities.pq, "write_table", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        follow_identities(record, herd)
    monkeypatch.undo()
    assert second.read_bytes() == before
    assert sorted(path.name for path in first.parent.iterdir()) == [first.name, second.name]
    assert [row[1] for row in rows(record)] == ["rosa", "rosa", "emma", "rosa"]
    assert follow_identities(record, herd) == 1
    assert {row[1] for row in rows(record)} == {"rosa"}


def test_a_damaged_day_is_left_alone_and_the_others_follow(herd, record, caplog):
    for day in range(2):
        watch(herd, {2: 10}, NINE + DAY * day)
    path = day_file(record, "cam", date(2026, 3, 1))
    path.write_bytes(half := path.read_bytes()[:200])
    merge(herd, "emma", into="rosa")
    with caplog.at_level(logging.WARNING):
        assert follow_identities(record, herd) == 1
    assert "its rows keep their names" in caplog.text
    assert path.read_bytes() == half


@pytest.mark.parametrize("tracks", ["none", "of another pool", "not remembered"])
def test_rows_whose_tracks_the_pool_does_not_hold_keep_their_names(herd, record, tracks):
    with RecordWriter(record, "cam", session="elsewhere") as writer:
        for second in range(5):
            number = None if tracks == "none" else 0
            writer.observe(NINE + second, [Sighting("berta", BOX, "sleep", None, number)])
    path = day_file(record, "cam", date(2026, 3, 1))
    if tracks == "not remembered":  # a record of a version before this
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns(list(ORIGIN)), path)
    before = path.read_bytes()
    assert follow_identities(record, herd) == 0
    assert path.read_bytes() == before
    with RecordWriter(record, "cam") as writer:
        for second in range(60, 65):
            writer.observe(NINE + second, [Sighting("berta", BOX, "sleep", None, 0)])
    assert rows(record) == [(9, "berta", "nobody", 8)]


def nearest_of(record, animal):
    rows = pq.read_table(day_file(record, "cam", date(2026, 3, 1)), partitioning=None).to_pylist()
    return next((row["nearest"], row["nearest_s"]) for row in rows if row["tracked_as"] == animal)


@pytest.mark.parametrize(
    ("animal", "into", "expected"),
    [("lisa", "mila", ("mila", 19)), ("emma", "rosa", ("mila", 10)), ("emma", "sow-17", ("sow-17", 11))],
)
def test_who_was_nearest_for_longest_is_found_by_the_names_of_now(herd, record, sample, animal, into, expected):
    """Beside rosa there is emma for 11 s, then lisa for 9, then mila for 10."""
    herd.append([sample(NINE, number) for number in (3, 4)])
    link(herd, [3], "lisa")
    link(herd, [4], "mila")
    beside = [(2, "emma")] * 12 + [(3, "lisa")] * 9 + [(4, "mila")] * 10
    with RecordWriter(record, "cam", session="s") as writer:
        for second, (number, other) in enumerate(beside):
            writer.observe(NINE + second, [Sighting("rosa", BOX, number=0), Sighting(other, BOX, number=number)])
    assert nearest_of(record, "rosa") == ("emma", 11)
    event = merge(herd, animal, into)
    follow_identities(record, herd)
    assert nearest_of(record, "rosa") == expected
    undo(herd, event)
    follow_identities(record, herd)
    assert nearest_of(record, "rosa") == ("emma", 11)


def test_rows_that_know_only_one_who_was_nearest_follow_the_pool_as_well(herd, record):
    watch(herd, {0: 30, 2: 10})
    path = day_file(record, "cam", date(2026, 3, 1))
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["nearest_each"]), path)
    merge(herd, "rosa", into="sow-17")
    assert follow_identities(record, herd) == 1
    assert rows(record) == [(9, "emma", "sow-17", 10), (9, "sow-17", "emma", 30)]


def test_building_again_replaces_rows_of_a_version_that_remembered_no_tracks(record):
    def build():
        with RecordWriter(record, "cam", resume=False) as writer:
            for second in range(5):
                writer.observe(NINE + second, [Sighting("berta", BOX, "sleep", None)])

    build()
    path = day_file(record, "cam", date(2026, 3, 1))
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(list(ORIGIN)), path)
    build()
    assert rows(record) == [(9, "berta", "nobody", 4)]


def test_a_day_that_another_process_rewrites_is_waited_for(herd, record):
    """Else rows that `record build` has just written into the same file would be lost."""
    watch(herd, {0: 10})
    (path,) = (record / HOURS).glob("*/*.parquet")
    merge(herd, "rosa", "emma")
    followed = threading.Thread(target=follow_identities, args=(record, herd))
    with alone_with(path):
        followed.start()
        followed.join(0.3)
        assert followed.is_alive()
    followed.join(10)
    assert not followed.is_alive()


def test_a_visit_goes_on_over_a_renaming_and_a_restart(herd, record):
    pen = PenMap(feeder_xyxy=(0, 0, 20, 20))
    with RecordWriter(record, "cam", pen, session="s") as writer:
        for second in range(60):
            writer.observe(NINE + second, [Sighting("rosa", BOX, number=0)])
    merge(herd, "rosa", into="sow-17")
    follow_identities(record, herd)
    with RecordWriter(record, "cam", pen, session="t") as writer:
        for second in range(65, 100):
            writer.observe(NINE + second, [Sighting("sow-17", BOX, number=0)])
    assert read_hours(record)["feeder_visits"].sum() == 1


def test_while_a_run_goes_on_the_nearest_has_the_name_of_now(herd, record, sample):
    far = BOX + 50
    with RecordWriter(record, "cam", session="s") as writer:
        for second in range(100):
            writer.observe(NINE + second, [Sighting("rosa", BOX, number=0), Sighting("emma", far, number=2)])
    merge(herd, "rosa", into="sow-17")
    follow_identities(record, herd)
    herd.append([sample(NINE + 3000, number, session="t") for number in (0, 2)])
    link(herd, [herd.find_track("cam", "t", 0)], "sow-17")
    link(herd, [herd.find_track("cam", "t", 2)], "emma")
    with RecordWriter(record, "cam", session="t") as writer:
        for second in range(101, 121):
            writer.observe(NINE + second, [Sighting("sow-17", BOX, number=0), Sighting("emma", far, number=2)])
    assert nearest_of(record, "emma") == ("sow-17", 118)
    assert follow_identities(record, herd) == 0


def test_after_a_split_between_two_runs_seconds_beside_both_are_divided(herd, record):
    """Nobody may be the nearest for longer than it was seen."""
    far = BOX + 50
    with RecordWriter(record, "cam", session="s") as writer:
        for second in range(151):
            writer.observe(NINE + second, [Sighting("rosa", BOX, number=0), Sighting("emma", far, number=2)])
    split(herd, [0], "zoe")
    follow_identities(record, herd)
    with RecordWriter(record, "cam", session="t") as writer:
        for second in range(200, 251):
            writer.observe(NINE + second, [Sighting("rosa", BOX), Sighting("emma", far)])
        writer.flush()
        assert nearest_of(record, "emma") == ("zoe", 150)
    follow_identities(record, herd)
    assert nearest_of(record, "emma") == ("zoe", 150)
