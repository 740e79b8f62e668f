import subprocess
import threading
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pl_distill.errors import ConfigError
from pl_distill.reid.longitudinal import RecordWriter, Sighting
from pl_distill.reid.pen_map import PenMap
from pl_distill.reid.record_files import RecordError, day_file, query, read_hours, rows_of_hour, upsert
from pl_distill.reid.record_schema import record_schema
from tests.python_process import python_process

NINE = datetime(2026, 3, 1, 9, tzinfo=UTC).timestamp()
PEN = PenMap(pixels_per_m=100.0, feeder_xyxy=(300, 0, 400, 50), drinkers_xyxy=((0, 0, 20, 20),))


def box(x, y, half=10):
    return np.array((x - half, y - half, x + half, y + half), np.float32)


def write(folder, frames, *, start=NINE, pen=PEN, **options):
    """Frames a second apart, each a list of sightings."""
    with RecordWriter(folder, "cam", pen, **options) as writer:
        for second, sightings in enumerate(frames):
            writer.observe(start + second, sightings)


def row_of(folder, animal="rosa"):
    hours = read_hours(folder)
    (row,) = hours[hours["animal"] == animal].to_dict("records")
    return row


def test_an_hour_adds_up_time_way_behaviour_and_company(tmp_path):
    frames = [
        [Sighting("rosa", box(100 + 50 * second, 100), "walk"), Sighting("emma", box(100, 150), "sleep")]
        for second in range(5)
    ]
    write(tmp_path, frames)
    row = row_of(tmp_path)
    assert row["seen_s"] == pytest.approx(4)
    assert row["distance_m"] == pytest.approx(2.0)  # four steps of half a metre
    assert (row["walk_s"], row["sleep_s"]) == pytest.approx((4, 0))
    # Emma is within a metre at 0.71 and 0.5 m ... sqrt(0.5^2 + s^2): at 0.5 m, not at 1.0, 1.5 and 2.0 m.
    assert row["neighbours"] == pytest.approx(1 / 4)
    assert (row["nearest"], row["nearest_s"]) == ("emma", pytest.approx(4))


def test_jitter_of_a_box_is_no_way(tmp_path):
    rng = np.random.default_rng(0)
    write(tmp_path, [[Sighting("rosa", box(*(100 + rng.uniform(-4, 4, 2))))] for _ in range(200)])
    assert row_of(tmp_path)["distance_m"] == 0


def at_six_a_second(folder, places):
    with RecordWriter(folder, "cam", PEN) as writer:
        for number, (x, y) in enumerate(places):
            writer.observe(NINE + number / 6, [Sighting("rosa", box(x, y))])
    return row_of(folder)["distance_m"]


def test_animals_side_by_side_that_exchange_names_have_not_walked(tmp_path):
    """Not even where the names are put right once a second; who walks afterwards does."""
    with RecordWriter(tmp_path, "cam", PEN) as writer:
        for number in range(36):
            names = ("rosa", "emma") if number // 6 % 2 == 0 else ("emma", "rosa")
            here = zip(names, (box(100, 100), box(100, 160)), strict=True)
            is_renamed = number > 0 and number % 6 == 0
            writer.observe(NINE + number / 6, [Sighting(name, at, is_renamed=is_renamed) for name, at in here])
        for number in range(36, 72):
            writer.observe(NINE + number / 6, [Sighting("rosa", box(100 + 5 * (number - 36), 160))])
    assert row_of(tmp_path, "emma")["distance_m"] == 0
    assert row_of(tmp_path, "rosa")["distance_m"] == pytest.approx(1.6, abs=0.2)


def test_flickering_masks_move_nobody(tmp_path):
    """Five pixels of noise, and once a second a mask that takes half of the neighbour along, for an hour's tenth."""
    rng = np.random.default_rng(0)
    places = 100 + rng.normal(0, 5, (2160, 2))
    places[::6] += 40
    assert at_six_a_second(tmp_path, places) == 0


def test_the_median_of_a_second_keeps_the_way_of_who_walks(tmp_path):
    """Half a metre a second for a minute, under the same noise."""
    rng = np.random.default_rng(0)
    way = np.stack([100 + np.arange(360) * 50 / 6, np.full(360, 100.0)], 1)
    assert at_six_a_second(tmp_path, way + rng.normal(0, 5, (360, 2))) == pytest.approx(29.9, abs=1.0)


def test_a_stay_that_is_seen_rarely_is_one_visit(tmp_path):
    """A picture in 15 s, of which each counts up to the next."""
    slow = replace(PEN, max_gap_s=30.0)
    with RecordWriter(tmp_path, "cam", slow) as writer:
        for number in range(80):
            writer.observe(NINE + 15 * number, [Sighting("rosa", box(350, 25))])
    row = row_of(tmp_path)
    assert (row["feeder_visits"], row["feeder_s"]) == (1, pytest.approx(79 * 15))


def test_an_animal_that_nobody_recognised_yet_is_a_neighbour_without_a_name(tmp_path):
    with RecordWriter(tmp_path, "cam", PEN) as writer:
        for second in range(11):
            both = [Sighting("rosa", box(100, 100)), Sighting("emma", box(400, 100))]
            writer.observe(NINE + second, both, [box(150, 100)] if second > 5 else [])
    row = row_of(tmp_path)
    assert row["neighbours"] == pytest.approx(5 / 10)
    assert (row["nearest"], row["nearest_s"]) == ("emma", pytest.approx(5))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"feeder_xyxy": (200, 200, 50, 80)}, r"feeder_xyxy: is 200, 200, 50, 80, expected left, top"),
        ({"drinkers_xyxy": ((0, 0, 20, 20), (9, 9, 9, 20))}, r"drinkers_xyxy\[1\]: is 9, 9, 9, 20"),
        ({"max_gap_s": 0}, r"max_gap_s: is 0"),
        ({"reach_m": -1.0}, r"reach_m: is -1"),
    ],
)
def test_places_and_limits_that_cannot_be_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        replace(PEN, **wrong)


def test_a_track_that_goes_over_to_another_animal_has_not_walked_there(tmp_path):
    """Six metres in a second, to and fro; then half a metre on foot."""
    places = (100, 700, 100, 700, 750)
    write(tmp_path, [[Sighting("rosa", box(place, 100))] for place in places])
    assert row_of(tmp_path)["distance_m"] == pytest.approx(0.5)
    write(
        tmp_path / "fast",
        [[Sighting("rosa", box(place, 100))] for place in places],
        pen=replace(PEN, max_speed_m_s=6.0),
    )
    assert row_of(tmp_path / "fast")["distance_m"] == pytest.approx(18.5)


def test_a_visit_goes_on_over_a_short_pause_and_ends_after_a_long_one(tmp_path):
    at, away = [Sighting("rosa", box(350, 40))], [Sighting("rosa", box(200, 200))]
    write(tmp_path, [*[at] * 5, *[away] * 3, *[at] * 5, *[away] * 20, *[at] * 4])
    row = row_of(tmp_path)
    assert row["feeder_visits"] == 2
    assert row["feeder_s"] == pytest.approx(4 + 5 + 4)
    assert row["drinker_visits"] == 0


@pytest.mark.parametrize(
    ("pen", "known"),
    [
        (PenMap(), {}),
        (PenMap(feeder_xyxy=(300, 0, 400, 50)), {"feeder": (1, 4.0)}),
        (PenMap(drinkers_xyxy=((300, 0, 400, 50),)), {"drinker": (1, 4.0)}),
    ],
    ids=["neither", "feeder", "drinker"],
)
def test_a_place_that_the_picture_does_not_show_is_unknown_not_unvisited(tmp_path, pen, known):
    write(tmp_path, [[Sighting("rosa", box(350, 40))]] * 5, pen=pen)
    write(tmp_path, [[Sighting("rosa", box(200, 200))]] * 2, start=NINE + 60, pen=pen)  # goes on with the row
    answer = query(tmp_path, "SELECT feeder_visits, feeder_s, drinker_visits, drinker_s FROM hours")
    expected = [value for place in ("feeder", "drinker") for value in known.get(place, (None, None))]
    assert [None if np.isnan(value) else value for value in answer.iloc[0].astype(float)] == expected
    (row,) = rows_of_hour(tmp_path, "cam", datetime(2026, 3, 1, 9, tzinfo=UTC))
    assert [row[name] for name in answer.columns] == expected


def test_time_unseen_is_not_counted_nor_the_jump_over_it(tmp_path):
    with RecordWriter(tmp_path, "cam", PEN) as writer:
        for second in (0, 1, 100, 101):
            writer.observe(NINE + second, [Sighting("rosa", box(100 if second < 50 else 400, 100), "standing")])
    row = row_of(tmp_path)
    assert (row["seen_s"], row["standing_s"], row["distance_m"]) == pytest.approx((2, 2, 0))


@pytest.mark.parametrize(
    ("steps_s", "warnings"),
    [((2.5,) * 60, 1), ((2.0,) * 60, 0), ((0.2, 0.2, 60.0) * 20, 0), ((0.2, 300.0) * 30, 0)],
    ids=["slow", "just in time", "with pauses", "clips of two frames"],
)
def test_frames_too_far_apart_to_count_anything_are_warned_of_once(tmp_path, caplog, steps_s, warnings):
    with RecordWriter(tmp_path, "cam", PEN) as writer:
        for after_s in np.cumsum(steps_s):
            writer.observe(NINE + after_s, [Sighting("rosa", box(1, 1))])
    assert len(caplog.messages) == warnings
    assert all("cam': observations come about 2.5 s apart" in one for one in caplog.messages)
    assert all("--place.max_gap_s" in one for one in caplog.messages)


def test_hours_and_days_get_rows_of_their_own(tmp_path):
    with RecordWriter(tmp_path, "cam", PEN) as writer:
        for hour in (0, 1, 16):
            for second in range(3):
                writer.observe(NINE + 3600 * hour + second, [Sighting("rosa", box(1, 1))])
    hours = read_hours(tmp_path)
    assert [f"{hour:%d %H}" for hour in hours["hour"]] == ["01 09", "01 10", "02 01"]
    assert sorted(path.name for path in (tmp_path / "hours" / "cam").iterdir()) == [
        "2026_03_01.parquet",
        "2026_03_02.parquet",
    ]


def test_a_step_over_the_full_hour_is_divided_so_that_no_hour_has_more_than_3600_seconds(tmp_path):
    """A sight every 1.6 s, of which one lies 0.8 s before ten o'clock; who is seen again after a pause gets nothing."""
    with RecordWriter(tmp_path, "cam", PEN) as writer:
        for number in range(3 * 2250 + 1):
            both = [Sighting("rosa", box(350 + 20 * (number % 2), 25), "eat", None, 7), Sighting("emma", box(350, 30))]
            writer.observe(NINE + 0.8 + 1.6 * number, both)
            if number == 2248:  # at 3597.6 s
                writer.observe(NINE + 3598.2, [*both, Sighting("lisa", box(900, 900))])
            if number == 2250:  # at 3600.8 s
                writer.observe(NINE + 3601.0, [*both, Sighting("lisa", box(900, 900))])
    hours = read_hours(tmp_path)
    rosa = hours[hours["animal"] == "rosa"]
    for column in ("seen_s", "eat_s", "feeder_s", "nearest_s"):
        assert rosa[column].tolist() == pytest.approx([3599.2, 3600, 3600, 0.8]), column
    assert rosa["neighbours"].tolist() == pytest.approx([1, 1, 1, 1])
    assert rosa["feeder_visits"].tolist() == [1, 0, 0, 0]
    tracks = [row["tracks"] for hour in range(9, 13) for row in rows_at(tmp_path, hour) if row["animal"] == "rosa"]
    assert [one["seen_s"] for (one,) in tracks] == pytest.approx([3599.2, 3600, 3600, 0.8])
    assert hours[hours["animal"] == "lisa"]["seen_s"].sum() == 0


def test_who_is_out_of_sight_at_the_full_hour_and_comes_back_at_once_loses_no_second(tmp_path):
    """Two animals in turn, 20 s apart, over the full hour: both rows hold all that lies between two sights."""
    start = NINE + 3000
    with RecordWriter(tmp_path, "cam", PenMap(pixels_per_m=100.0, max_gap_s=60)) as writer:
        for number in range(61):
            writer.observe(start + 20 * number, [Sighting(("rosa", "emma")[number % 2], box(100, 100))])
    seen = read_hours(tmp_path).groupby("animal")["seen_s"].agg(list)
    assert seen["rosa"] == [600.0, 600.0]
    assert seen["emma"] == [580.0, 580.0], "first seen 20 s after rosa, last seen 20 s before her"


def test_a_row_that_is_completed_after_its_hour_still_drifts_from_nothing_in_its_first(tmp_path):
    look = np.eye(4, dtype=np.float32)
    with RecordWriter(tmp_path, "cam", PenMap(pixels_per_m=100.0, max_gap_s=60)) as writer:
        writer.observe(NINE + 3590, [Sighting("rosa", box(100, 100), embedding=look[0])])
        writer.observe(NINE + 3605, [Sighting("emma", box(100, 100), embedding=look[1])])
        writer.observe(NINE + 3610, [Sighting("rosa", box(100, 100), embedding=look[2])])
    rosa = read_hours(tmp_path).query("animal == 'rosa'")
    assert rosa["seen_s"].tolist() == [10.0, 10.0]
    assert rosa["drift"].isna().tolist() == [True, False]


def rows_at(folder, hour):
    return rows_of_hour(folder, "cam", datetime(2026, 3, 1, hour, tzinfo=UTC))


def test_drift_is_measured_from_the_first_hour_or_the_given_day(tmp_path):
    along, aside = np.float32([1, 0]), np.float32([0, 1])
    with RecordWriter(tmp_path, "cam", PEN, references={"emma": aside}) as writer:
        for hour, vector in ((0, along), (1, aside)):
            for second in range(3):
                both = [Sighting(name, box(1, 1), None, vector) for name in ("rosa", "emma")]
                writer.observe(NINE + 3600 * hour + second, both)
    hours = read_hours(tmp_path)
    nothing = pytest.approx(np.nan, nan_ok=True)
    assert hours[hours["animal"] == "rosa"]["drift"].tolist() == [nothing, pytest.approx(1)]
    assert hours[hours["animal"] == "emma"]["drift"].tolist() == pytest.approx([1, 0])


def test_the_first_hour_has_no_drift_however_often_it_is_written(tmp_path):
    along, aside = np.float32([1, 0]), np.float32([0, 1])
    with RecordWriter(tmp_path, "cam", PEN, flush_s=1.0) as writer:
        for hour, looks in ((0, (along, along, aside)), (1, (along, along, aside))):
            for second, vector in enumerate(looks):
                writer.observe(NINE + 3600 * hour + 10 * second, [Sighting("rosa", box(1, 1), None, vector)])
    first, second = read_hours(tmp_path).to_dict("records")
    assert (first["embeddings"], first["drift"]) == (3, pytest.approx(np.nan, nan_ok=True))
    assert second["drift"] == pytest.approx(0, abs=1e-6)


def test_drift_after_a_restart_is_of_what_was_compared(tmp_path):
    along, aside = np.float32([1, 0]), np.float32([0, 1])
    write(tmp_path, [[Sighting("rosa", box(1, 1), None, along)]] * 3)  # an hour without anything to drift from
    write(tmp_path, [[Sighting("rosa", box(1, 1), None, aside)]] * 2, start=NINE + 60, references={"rosa": along})
    assert (row_of(tmp_path)["embeddings"], row_of(tmp_path)["drift"]) == (5, pytest.approx(1))
    write(tmp_path, [[Sighting("rosa", box(1, 1), None, along)]] * 5, start=NINE + 120, references={"rosa": along})
    assert row_of(tmp_path)["drift"] == pytest.approx(0.5)  # five of ten


def test_a_restart_within_an_hour_goes_on_with_its_row(tmp_path):
    frames = [[Sighting("rosa", box(100 + 50 * second, 100), "walk")] for second in range(5)]
    write(tmp_path, frames)
    write(tmp_path, frames, start=NINE + 60)
    row = row_of(tmp_path)
    assert (row["seen_s"], row["distance_m"], row["walk_s"]) == pytest.approx((8, 4, 8))
    write(tmp_path, frames, start=NINE + 120, resume=False)
    assert row_of(tmp_path)["seen_s"] == pytest.approx(4)


def test_after_a_restart_the_nearest_is_who_was_it_for_longest_of_the_whole_hour(tmp_path):
    """Emma for six seconds, lisa for eight, emma for five more. A file of before knows lisa's seconds alone."""
    near, far = box(100, 150), box(100, 400)
    rosa = Sighting("rosa", box(100, 100))

    def frames(emma_s, lisa_s):
        first = [rosa, Sighting("emma", near), Sighting("lisa", far)]
        then = [rosa, Sighting("emma", far), Sighting("lisa", near)]
        return [first] * (1 + emma_s) + [then] * lisa_s

    for folder in (tmp_path / "now", tmp_path / "before"):
        write(folder, frames(6, 8))
        if folder.name == "before":
            path = day_file(folder, "cam", date(2026, 3, 1))
            pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["nearest_each"]), path)
        write(folder, frames(5, 0), start=NINE + 60)
    now, before = row_of(tmp_path / "now"), row_of(tmp_path / "before")
    assert (now["nearest"], now["nearest_s"]) == ("emma", pytest.approx(11))
    assert (before["nearest"], before["nearest_s"]) == ("lisa", pytest.approx(8))
    assert "nearest_each" not in now


def test_a_restart_in_the_middle_of_a_visit_is_no_second_one(tmp_path):
    at, away = [Sighting("rosa", box(350, 40))], [Sighting("rosa", box(200, 200))]
    write(tmp_path, [at] * 5)
    write(tmp_path, [at] * 5, start=NINE + 60)
    assert row_of(tmp_path)["feeder_visits"] == 1
    write(tmp_path, [*[away] * 3, *[at] * 5], start=NINE + 120)
    assert row_of(tmp_path)["feeder_visits"] == 2
    write(tmp_path, [[Sighting("rosa", box(10, 10))]] * 2, start=NINE + 180)
    assert row_of(tmp_path)["drinker_visits"] == 1  # the first of all at the drinker


@pytest.mark.parametrize(("pause_s", "visits"), [(60, [1, 0]), (1200, [1, 1])])
def test_a_visit_over_the_full_hour_and_a_restart_is_one_and_after_a_long_pause_another(tmp_path, pause_s, visits):
    at = [Sighting("rosa", box(350, 40))]
    write(tmp_path, [at] * 60, start=NINE + 3570)
    write(tmp_path, [at] * 5, start=NINE + 3630 + pause_s)
    assert read_hours(tmp_path)["feeder_visits"].tolist() == visits


@pytest.mark.parametrize(("pause_s", "visits"), [(30, [1, 0]), (400, [1, 1])])
def test_a_visit_that_a_restart_takes_over_the_full_hour_is_one(tmp_path, pause_s, visits):
    at = [Sighting("rosa", box(350, 40))]
    write(tmp_path, [at] * 60, start=NINE + 3530)  # ends before ten
    write(tmp_path, [at] * 5, start=NINE + 3590 + pause_s)
    assert read_hours(tmp_path)["feeder_visits"].tolist() == visits


def test_yesterdays_damaged_file_does_not_end_a_run_that_begins_after_midnight(tmp_path, caplog):
    at = [Sighting("rosa", box(350, 40))]
    midnight = NINE + 15 * 3600
    write(tmp_path, [at] * 5, start=midnight - 30)
    yesterday = day_file(tmp_path, "cam", date(2026, 3, 1))
    yesterday.write_bytes(yesterday.read_bytes()[:-20])
    write(tmp_path, [at] * 5, start=midnight + 10)
    assert "visits of 'rosa' begin anew" in caplog.text
    yesterday.unlink()
    assert row_of(tmp_path)["feeder_visits"] == 1


@pytest.mark.parametrize(("away_s", "visits"), [(3, 1), (30, 2)])
def test_an_animal_that_a_restart_finds_beside_its_place_is_judged_by_the_pause(tmp_path, away_s, visits):
    """As in one run: 3 s away end no visit, 30 s do."""
    at, away = [Sighting("rosa", box(350, 40))], [Sighting("rosa", box(200, 200))]
    write(tmp_path, [at] * 5)
    write(tmp_path, [*[away] * (away_s - 1), *[at] * 5], start=NINE + 6)
    assert row_of(tmp_path)["feeder_visits"] == visits


def test_a_row_that_does_not_know_when_the_animal_was_last_there_goes_on_with_the_visit(tmp_path):
    at = [Sighting("rosa", box(350, 40))]
    write(tmp_path, [at] * 5)
    path = day_file(tmp_path, "cam", date(2026, 3, 1))
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["last_at"]), path)
    write(tmp_path, [at] * 5, start=NINE + 600)
    assert row_of(tmp_path)["feeder_visits"] == 1


def test_of_a_place_that_the_map_did_not_have_when_the_hour_began_nothing_is_known(tmp_path):
    """Else its seconds would be divided by those in which nobody looked for it."""
    at = [Sighting("rosa", box(350, 40))]
    write(tmp_path, [at] * 50, pen=PenMap(drinkers_xyxy=PEN.drinkers_xyxy))
    write(tmp_path, [at] * 5, start=NINE + 60)
    write(tmp_path, [at] * 5, start=NINE + 3600)
    answer = query(tmp_path, "SELECT feeder_visits, feeder_s, drinker_visits FROM hours ORDER BY hour")
    assert answer.iloc[0].isna().tolist() == [True, True, False]
    assert answer.iloc[1].tolist() == [1, 4, 0]


WRITER = """
import sys
from pl_distill.reid.longitudinal import RecordWriter, Sighting
import numpy as np
writer = RecordWriter(sys.argv[1], "cam", flush_s=2.0)
for second in range(100000):
    animals = [Sighting(name, np.float32([0, 0, 9, 9]), "sleep") for name in ("rosa", "emma")]
    writer.observe(1772355600.0 + second, animals)
    print(second, flush=True)
"""


def test_a_kill_loses_what_came_after_the_last_flush_and_no_row(tmp_path):
    with python_process("-c", WRITER, tmp_path, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline() for _ in range(30)]
        process.kill()
        last = int((lines + process.stdout.read().splitlines())[-1])
    hours = read_hours(tmp_path)
    assert sorted(hours["animal"]) == ["emma", "rosa"]
    assert (hours["sleep_s"] >= last - 3).all()
    with RecordWriter(tmp_path, "cam") as writer:  # takes what the kill may have left of a file away
        for second in range(2):
            writer.observe(NINE + second, [Sighting("lisa", box(1, 1))])
    assert not [path for path in tmp_path.rglob("*") if ".partial-" in path.name]


def test_two_writers_of_one_camera_lose_no_row(tmp_path):
    """As two `record build` of different clips, at the same time, under the default name of a camera."""

    def write_all(name):
        for number in range(20):
            write(tmp_path, [[Sighting(f"{name}-{number}", box(1, 1))]] * 2)

    threads = [threading.Thread(target=write_all, args=(name,)) for name in ("rosa", "emma")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_hours(tmp_path)) == 40


def test_a_kill_finds_a_row_of_everybody_who_was_seen_in_the_hour(tmp_path):
    """With the default interval; a writer that is never closed stands for one that is killed."""
    look = np.float32([1, 0])
    rosa, emma = (Sighting(name, box(1, 1), "sleep", look) for name in ("rosa", "emma"))
    writer = RecordWriter(tmp_path, "cam", PEN)

    def rows():
        hours = read_hours(tmp_path)
        return list(zip(hours["hour"].dt.hour, hours["animal"], hours["sleep_s"], strict=True))

    writer.observe(NINE + 3500, [rosa])
    assert rows() == [(9, "rosa", 0)]
    writer.observe(NINE + 3501, [rosa, emma])
    assert rows() == [(9, "emma", 0), (9, "rosa", 1)]
    for second in range(3502, 3600):
        writer.observe(NINE + second, [rosa, emma])
    assert rows() == [(9, "emma", pytest.approx(60)), (9, "rosa", pytest.approx(61))]
    writer.observe(NINE + 3600, [rosa])
    assert rows() == [(9, "emma", 98), (9, "rosa", 100), (10, "rosa", 0)]
    for second in range(3601, 3660):
        writer.observe(NINE + second, [rosa])
    assert rows()[2:] == [(10, "rosa", 0)]
    writer.observe(NINE + 3660, [rosa])
    assert rows()[2:] == [(10, "rosa", 60)]


@pytest.mark.parametrize("heads", [((), ("eat", "walk")), (("eat", "walk"), ()), (("walk",), ("eat", "walk"))])
def test_others_read_the_files_as_the_docs_say_and_find_what_each_column_means(tmp_path, monkeypatch, heads):
    for day, head in enumerate(heads):
        at = NINE + 86_400 * day
        write(tmp_path / "record", [[Sighting("rosa", box(1, 1), "eat")]] * 3, start=at, behaviours=head)
    docs = Path("docs/animal-record.md").read_text().partition("## The record")[2]
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(docs.split("```python")[1].split("```")[0], found)
    expected = [2.0 if "eat" in head else None for head in heads]
    assert [None if np.isnan(eaten) else eaten for eaten in found["by_pandas"]["eat_s"]] == expected
    assert found["by_polars"].sort("hour")["eat_s"].to_list() == expected
    in_order = found["by_duckdb"].order("hour")
    assert [eaten for (eaten,) in in_order.project("eat_s").fetchall()] == expected
    assert in_order.project("hour::DATE").fetchall() == [(date(2026, 3, 1),), (date(2026, 3, 2),)]
    ours = query(Path("record"), "SELECT eat_s FROM hours ORDER BY hour")["eat_s"]
    assert [None if np.isnan(eaten) else eaten for eaten in ours] == expected
    assert all(b"meaning" in field.metadata for field in record_schema())


def test_a_question_in_sql_reads_the_rows_and_nothing_else(tmp_path):
    write(tmp_path, [[Sighting("rosa", box(1, 1))]] * 3)
    assert query(tmp_path, "SELECT sum(seen_s) AS s FROM hours")["s"].tolist() == [2.0]
    with pytest.raises(RecordError, match=r"--sql: is not understood.*a SELECT from hours"):
        query(tmp_path, "SELECT way FROM hours")
    with pytest.raises(RecordError, match="disabled"):
        query(tmp_path, "SELECT * FROM read_csv('/etc/passwd')")


def test_days_of_a_question_are_utc_on_every_machine(tmp_path, monkeypatch):
    write(tmp_path, [[Sighting("rosa", box(1, 1))]] * 3, start=NINE + 11 * 3600)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        found = query(tmp_path, "SELECT hour::DATE::VARCHAR AS day, hour::VARCHAR AS hour FROM hours")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found.to_dict("records") == [{"day": "2026-03-01", "hour": "2026-03-01 20:00:00+00"}]


def test_a_truncated_day_is_refused_by_name_and_left_alone(tmp_path):
    frames = [[Sighting("rosa", box(1, 1))]] * 3
    write(tmp_path, frames)
    path = day_file(tmp_path, "cam", date(2026, 3, 1))
    half = path.read_bytes()[:200]
    path.write_bytes(half)
    for action in (lambda: read_hours(tmp_path), lambda: write(tmp_path, frames)):
        with pytest.raises(RecordError, match=r"2026_03_01.parquet: is truncated or damaged"):
            action()
    assert path.read_bytes() == half


def write_next_day(folder, kind):
    """Give the second of March a file that this head cannot write to."""
    write(folder, [[Sighting("emma", box(1, 1))]] * 3, start=NINE + 86_400, behaviours=("sleep",))
    path = day_file(folder, "cam", date(2026, 3, 2))
    if kind == "damaged":
        path.write_bytes(path.read_bytes()[:200])
    if kind == "of a stranger":
        pq.write_table(pa.table({"a": [1]}), path)
    return path


@pytest.mark.parametrize("kind", ["of another head", "damaged", "of a stranger"])
def test_every_day_that_a_recording_touches_is_asked_before_a_frame_is_tracked(tmp_path, kind):
    write_next_day(tmp_path, kind)
    begin = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    with RecordWriter(tmp_path, "cam", PEN) as writer:
        writer.check(begin, begin + timedelta(minutes=30))
        with pytest.raises(
            RecordError, match=r"2026_03_02.parquet: (names the behaviours|is truncated|lacks .*animal)"
        ):
            writer.check(begin, begin + timedelta(minutes=31))


@pytest.mark.parametrize("kind", ["of another head", "damaged", "of a stranger"])
def test_a_day_that_cannot_be_written_is_left_out_by_a_camera_that_runs_into_it(tmp_path, caplog, kind):
    path = write_next_day(tmp_path, kind)
    before = path.read_bytes()
    rosa = [Sighting("rosa", box(1, 1), "sleep")]
    with RecordWriter(tmp_path, "cam", PEN) as writer:
        for start in (0, 54_000, 54_003, 54_006, 140_400):  # 9:00, three times midnight, the midnight after it
            for second in range(3):
                writer.observe(NINE + start + second, rosa)
    assert path.read_bytes() == before
    (message,) = caplog.messages
    assert "camera 'cam' goes on without a record of 2026-03-02" in message
    assert "2026_03_02.parquet" in message
    path.unlink()
    hours = read_hours(tmp_path)
    assert [f"{hour:%d %H}" for hour in hours["hour"]] == ["01 09", "03 00"]


def test_what_cannot_be_a_record_is_refused(tmp_path):
    with pytest.raises(RecordError, match="holds no record"):
        read_hours(tmp_path)
    with pytest.raises(RecordError, match="no name of a folder"):
        day_file(tmp_path, "../up", date(2026, 3, 1))
    with pytest.raises(ConfigError, match="without a clash"):
        RecordWriter(tmp_path, "cam", behaviours=("seen",))
    write(tmp_path, [[Sighting("rosa", box(1, 1))]] * 3)
    rows = read_hours(tmp_path).to_dict("records")
    with pytest.raises(RecordError, match="names the behaviours"):
        upsert(tmp_path, rows, ("sleep",))
