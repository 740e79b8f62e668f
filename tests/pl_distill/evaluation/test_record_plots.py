import warnings
from dataclasses import replace
from datetime import date, timedelta

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pl_distill.evaluation.record_plots import draw_drift, draw_heat_map, draw_lead_times, draw_timeline
from pl_distill.reid.association import Association, Finding
from pl_distill.reid.daily import DailyTable


@pytest.fixture
def grids(monkeypatch):
    """What is drawn, one (24, T) for each behaviour."""
    drawn = []
    draw = Axes.imshow
    monkeypatch.setattr(Axes, "imshow", lambda axes, grid, **how: (drawn.append(grid), draw(axes, grid, **how))[1])
    return drawn


@pytest.fixture
def figures(monkeypatch):
    """The figures that are written."""
    written = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **how: (written.append(figure), save(figure, *a, **how)))
    return written


def hours(*rows):
    frame = pd.DataFrame(rows, columns=["animal", "hour", "seen_s", "sleep_s"])
    return frame.assign(hour=pd.to_datetime(frame["hour"], utc=True), sleep_s=frame["sleep_s"].astype(float))


def test_hours_without_a_behaviour_head_are_blank_and_no_zero(tmp_path, grids):
    rows = hours(
        ("rosa", "2026-01-01 08:00", 1000.0, None),
        ("rosa", "2026-01-02 08:00", 1000.0, None),  # of one camera, whose head is away
        ("rosa", "2026-01-02 08:00", 1000.0, 500.0),
        ("rosa", "2026-01-02 09:00", 1000.0, 0.0),
        ("emma", "2026-01-01 08:00", 1000.0, None),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as of a mean of nothing
        path = draw_heat_map(tmp_path / "rosa.png", rows, "rosa")
        draw_heat_map(tmp_path / "emma.png", rows, "emma")
    assert cv2.imread(str(path)) is not None
    rosa, emma = grids
    assert (rosa[8, 1], rosa[9, 1]) == (50, 0)
    assert np.isnan(rosa[:, 0]).all()
    assert np.isnan(emma).all()


def test_hours_are_drawn_where_the_clock_of_the_farm_has_them(tmp_path, grids):
    draw_heat_map(tmp_path / "a.png", hours(("rosa", "2026-01-01 20:00", 10.0, 5.0)), "rosa", timezone="Asia/Tokyo")
    assert np.argwhere(np.isfinite(grids[0])).tolist() == [[5, 0]]


NAMES = ("drift", "distance_m", "feeder_visits", "drinker_visits", "sleep_percent", "walk_percent")


def table_of(animals=("rosa", "emma"), days=10, names=NAMES):
    values = np.random.default_rng(0).uniform(10, 50, (len(names), len(animals), days))
    first = date(2026, 1, 1)
    return DailyTable(tuple(animals), tuple(first + timedelta(days=day) for day in range(days)), names, values)


def test_dollars_in_names_and_reasons_are_no_formula(tmp_path):
    words = [(np.datetime64("2026-01-04T10:00"), "merge: $_$ was told by its ear tag")]
    draw_drift(tmp_path / "drift.png", table_of(("a$_$b", "emma")), "a$_$b", changes=words)
    assert cv2.imread(str(tmp_path / "drift.png")) is not None


def test_a_merge_of_another_day_or_of_many_words_leaves_the_drift_as_wide_and_high_as_it_was(tmp_path, figures):
    changes = [
        (np.datetime64("2025-12-31T23:59"), "merge: too early"),
        (np.datetime64("2026-01-10T18:00"), "merge: " + "word " * 30),
        (np.datetime64("2026-07-01T10:00"), "merge: too late"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as of a layout that is not applied
        draw_drift(tmp_path / "drift.png", table_of(), "rosa", changes=changes)
    (axes,) = figures[0].axes
    first, last = axes.get_xlim()
    assert last - first < 11
    assert axes.get_position().height > 0.6
    assert [text.get_text()[:11] for text in axes.texts] == ["merge: word"]


def dots(axes):
    return [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]


def test_a_day_without_neighbours_is_drawn_as_bars_and_dots(tmp_path, figures):
    draw_timeline(tmp_path / "timeline.png", table_of(days=1), "rosa")
    draw_drift(tmp_path / "drift.png", table_of(days=1), "rosa")
    budget, way, visits, drift = [axes for figure in figures for axes in figure.axes]
    assert len(budget.patches) == 2  # behaviours
    assert [len(dots(axes)) for axes in (way, visits, drift)] == [2, 2, 2]
    assert [label.get_text() for label in visits.get_xticklabels()] == ["2026-01-01"]


def test_days_on_which_an_animal_was_not_tracked_are_gaps(tmp_path, figures):
    table = table_of()
    values = table.values.copy()
    values[:, 0, [3, 4, 6]] = np.nan  # so that the 6th of January stands alone
    draw_timeline(tmp_path / "timeline.png", replace(table, values=values), "rosa")
    budget, way, _ = figures[0].axes
    first = (date(2026, 1, 1) - date(1970, 1, 1)).days
    for area in budget.collections:
        corners = np.concatenate([path.vertices[:, 0] for path in area.get_paths()]) - first
        assert set(np.round(corners)) == {0, 1, 2, 5, 7, 8, 9}
    assert [round(bar.get_x() + bar.get_width() / 2 - first) for bar in budget.patches] == [5, 5]
    assert budget.get_position().height > 0.3  # of the picture
    smooth = next(line for line in way.lines if line.get_label() == "rosa")
    assert np.flatnonzero(np.isnan(smooth.get_ydata())).tolist() == [3, 4, 6]


def test_visits_to_what_no_picture_shows_are_no_line_at_0(tmp_path, figures):
    table = table_of()
    values = table.values.copy()
    values[NAMES.index("drinker_visits")] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_timeline(tmp_path / "timeline.png", replace(table, values=values), "rosa")
    (*_, visits) = figures[0].axes
    feeder, drinker = visits.lines
    assert np.isfinite(feeder.get_ydata()).all()
    assert np.isnan(drinker.get_ydata()).all()
    assert (feeder.get_label(), drinker.get_label()) == ("feeder visits", "drinker visits (none in the picture)")


def test_leads_are_days_before_and_time_goes_to_the_right(tmp_path, figures):
    found = [Finding("walk_percent", lead, -2.0, -3.0, -1.0, 0.01, 0.01, 4) for lead in (0, 1, 2)]
    draw_lead_times(tmp_path / "lead.png", Association("lameness", 12, 4, 0, 0.05, 1.5, found))
    (axes,) = figures[0].axes
    left, right = axes.get_xlim()
    assert left > 2 > 0 > right
    assert [tick for tick in axes.get_xticks() if right <= tick <= left] == [0, 1, 2]
