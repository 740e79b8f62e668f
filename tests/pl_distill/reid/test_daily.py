from datetime import date

import numpy as np
import pandas as pd
import pytest

from pl_distill.errors import ConfigError
from pl_distill.reid.daily import between, daily_table, own_change


def hours(*rows):
    columns = ("animal", "hour", "seen_s", "distance_m", "embeddings", "drift", "sleep_s", "neighbours")
    frame = pd.DataFrame([dict(zip(columns, row, strict=True)) for row in rows])
    frame["hour"] = pd.to_datetime(frame["hour"], utc=True)
    for name in ("feeder_visits", "feeder_s", "drinker_visits", "drinker_s", "nearest_s"):
        frame[name] = 0.0
    return frame


def test_days_are_rates_over_the_tracked_time_of_all_cameras():
    table = daily_table(
        hours(
            ("a", "2026-01-01 08:00", 1800, 30, 1, 0.2, 900, 2.0),
            ("a", "2026-01-01 09:00", 1800, 10, 3, 0.6, 0, 0.0),
            ("a", "2026-01-03 09:00", 100, 10, 3, 0.6, 0, 0.0),  # hardly seen
            ("b", "2026-01-02 09:00", 3600, 7, 0, None, 3600, 1.0),
        )
    )
    assert (table.animals, len(table.days)) == (("a", "b"), 3)
    value = {name: table.values[index] for index, name in enumerate(table.names)}
    assert value["distance_m"][0, 0] == pytest.approx(40)
    assert value["sleep_percent"][:, :2].tolist() == [
        [25.0, pytest.approx(np.nan, nan_ok=True)],
        [pytest.approx(np.nan, nan_ok=True), 100.0],
    ]
    assert value["neighbours"][0, 0] == pytest.approx(1.0)
    assert value["drift"][0, 0] == pytest.approx((0.2 + 3 * 0.6) / 4)
    assert np.isnan(value["drift"][1]).all()
    assert np.isnan(table.values[:, 0, 2]).all()


def test_days_begin_and_end_where_the_farm_is():
    rows = hours(
        ("a", "2026-01-01 10:00", 3600, 10, 0, None, 0, 0.0),
        ("a", "2026-01-01 11:00", 3600, 40, 0, None, 0, 0.0),  # midnight in Auckland
    )
    for zone, ways in (
        ("UTC", {date(2026, 1, 1): 25}),
        ("Pacific/Auckland", {date(2026, 1, 1): 10, date(2026, 1, 2): 40}),
    ):
        table = daily_table(rows, zone)
        assert dict(zip(table.days, table.values[table.names.index("distance_m"), 0], strict=True)) == ways


def test_days_are_cut_out_by_the_clock_of_the_farm():
    rows = hours(*(("a", f"2026-01-0{day} 11:00", 3600, day, 0, None, 0, 0.0) for day in (1, 2, 3)))
    second = date(2026, 1, 2)
    assert between(rows, second, second)["distance_m"].tolist() == [2]
    assert between(rows, second, second, "Pacific/Auckland")["distance_m"].tolist() == [1]
    assert between(rows, second, None)["distance_m"].tolist() == [2, 3]
    with pytest.raises(ConfigError, match="has 2026_01_01 to 2026_01_03, expected days from the first to 2025-12-31"):
        between(rows, None, date(2025, 12, 31))


@pytest.mark.parametrize("zone", ["Mars/Olympus", "Europe", "../etc", ""])
def test_an_unknown_time_zone_is_refused(zone):
    with pytest.raises(ConfigError, match=f"--timezone {zone}: is no known time zone"):
        daily_table(hours(("a", "2026-01-01 10:00", 3600, 10, 0, None, 0, 0.0)), zone)


def test_hours_in_which_no_head_named_behaviours_are_unknown_not_nothing():
    table = daily_table(
        hours(
            ("a", "2026-01-01 08:00", 1800, 0, 0, None, 900, 0.0),
            ("a", "2026-01-01 09:00", 1800, 0, 0, None, None, 0.0),
            ("a", "2026-01-02 09:00", 3600, 0, 0, None, None, 0.0),
        )
    )
    sleep = table.values[table.names.index("sleep_percent"), 0]
    assert sleep[0] == pytest.approx(50)
    assert np.isnan(sleep[1])


def test_feeder_and_drinker_are_rates_over_the_time_in_their_cameras_picture():
    """Two cameras, of which one sees the feeder and none a drinker."""
    rows = hours(
        ("a", "2026-01-01 08:00", 3600, 10, 0, None, 0, 0.0),
        ("a", "2026-01-01 08:00", 3600, 20, 0, None, 0, 0.0),
        ("a", "2026-01-02 08:00", 3600, 20, 0, None, 0, 0.0),
        ("a", "2026-01-03 08:00", 300, 20, 0, None, 0, 0.0),
        ("a", "2026-01-03 08:00", 3600, 20, 0, None, 0, 0.0),
    )
    rows["feeder_s"] = [720.0, None, None, 60.0, None]
    rows["feeder_visits"] = [2.0, None, None, 1.0, None]
    rows["drinker_visits"] = rows["drinker_s"] = None
    table = daily_table(rows)
    value = {name: table.values[index, 0].tolist() for index, name in enumerate(table.names)}
    unknown = pytest.approx(np.nan, nan_ok=True)
    assert value["feeder_s"] == [720, unknown, unknown]  # on the 3rd it was hardly seen by that camera
    assert value["feeder_visits"] == [2, unknown, unknown]
    assert np.isnan([value["drinker_visits"], value["drinker_s"]]).all()
    assert value["distance_m"][0] == 15


def test_nothing_after_a_day_changes_what_is_said_of_it():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 6, 80))
    other = values.copy()
    other[..., 60:] = rng.normal(size=(2, 6, 20)) + 5
    before, after = own_change(values), own_change(other)
    assert np.isfinite(before[..., 13:60]).all()
    np.testing.assert_array_equal(before[..., :60], after[..., :60])


def test_a_step_shows_against_the_own_past_and_the_herds_weather_does_not():
    values = np.zeros((1, 4, 60))
    values += 10 * np.sin(np.arange(60))  # weather
    values[0, 2, 40:] -= 3
    change = own_change(values)
    change = change - change[:, :1]  # an animal that nothing happens to
    assert change[0, 2, 39] == pytest.approx(0, abs=1e-9)
    assert change[0, 2, 42] == pytest.approx(-3) == pytest.approx(np.nanmin(change))
    assert np.isnan(change[0, :, :10]).all()  # no past yet
