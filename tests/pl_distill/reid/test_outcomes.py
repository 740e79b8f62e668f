from datetime import date

import pandas as pd
import pytest

from pl_distill.reid.outcomes import read_outcomes
from pl_distill.reid.record_files import RecordError

FIRST, LAST = date(2026, 1, 1), date(2026, 2, 1)
HEAD = "animal,date,kind,value\n"


def read(tmp_path, text):
    path = tmp_path / "outcomes.csv"
    path.write_text(text)
    return read_outcomes(path, {"rosa", "emma"}, FIRST, LAST)


def test_a_table_is_read_from_csv_and_parquet(tmp_path):
    (one,) = read(tmp_path, HEAD + "rosa,2026-01-05,lameness,2\n")
    assert (one.animal, one.day, one.kind, one.value) == ("rosa", date(2026, 1, 5), "lameness", 2.0)
    path = tmp_path / "outcomes.parquet"
    pd.DataFrame([{"animal": "rosa", "date": "2026-01-05", "kind": "lameness", "value": 2}]).to_parquet(path)
    assert read_outcomes(path, {"rosa"}, FIRST, LAST) == [one]


def test_an_animal_may_be_called_what_pandas_takes_for_nothing(tmp_path):
    path = tmp_path / "outcomes.csv"
    path.write_text(HEAD + "NA,2026-01-05,lameness,2\n")
    assert [one.animal for one in read_outcomes(path, {"NA"}, FIRST, LAST)] == ["NA"]


@pytest.mark.parametrize(
    ("line", "is_case"),
    [
        ("rosa,2026-01-05,lameness,2", True),
        ("rosa,2026-01-05,disease,0", False),
        ("rosa,2026-01-05,growth,0", True),
        ("rosa,2026-01-05,growth,-0.2", True),
    ],
)
def test_a_value_of_0_says_that_there_was_nothing_but_of_growth(tmp_path, line, is_case):
    assert [one.is_case for one in read(tmp_path, HEAD + line + "\n")] == [is_case]


@pytest.mark.parametrize(
    "when",
    [date(2026, 1, 5), pd.Timestamp("2026-01-05 07:30"), pd.Timestamp("2026-01-05 23:30", tz="Pacific/Auckland")],
)
def test_a_column_of_dates_or_times_needs_no_words(tmp_path, when):
    path = tmp_path / "outcomes.parquet"
    pd.DataFrame([{"animal": "rosa", "date": when, "kind": "lameness", "value": 2}]).to_parquet(path)
    assert [one.day for one in read_outcomes(path, {"rosa"}, FIRST, LAST)] == [date(2026, 1, 5)]


def test_an_instant_is_of_the_farms_day(tmp_path):
    path = tmp_path / "outcomes.parquet"
    when = pd.Timestamp("2026-01-05 23:30", tz="UTC")
    pd.DataFrame([{"animal": "rosa", "date": when, "kind": "lameness", "value": 2}]).to_parquet(path)
    for zone, day in (("UTC", 5), ("Europe/Amsterdam", 6)):
        assert [one.day for one in read_outcomes(path, {"rosa"}, FIRST, LAST, zone)] == [date(2026, 1, day)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("berta,2026-01-05,lameness,2", "line 2: animal 'berta' is not in the record"),
        ("rosa,2026-02-02,lameness,2", "line 2: date 2026-02-02 is outside of the record"),
        ("rosa,yesterday,lameness,2", "line 2: date 'yesterday' is none"),
        ("rosa,01/02/2026,lameness,2", "line 2: date '01/02/2026' is none, expected .* as YYYY-MM-DD"),
        ("rosa,2026-01-05 10:00,lameness,2", "line 2: date '2026-01-05 10:00' is none"),
        ("rosa,2026-01-05,limping,2", "line 2: kind 'limping' is unknown"),
        ("rosa,2026-01-05,lameness,-1", "line 2: value -1 is below 0, which is an animal without lameness"),
        ("rosa,2026-01-05,growth,much", "line 2: value 'much' is no number"),
        ("rosa,2026-01-05,growth,inf", "line 2: value 'inf' is no number"),
    ],
)
def test_a_wrong_line_is_refused_by_its_number(tmp_path, line, words):
    with pytest.raises(RecordError, match=words):
        read(tmp_path, HEAD + line + "\n")


def test_blank_lines_are_none_and_keep_the_numbers_of_those_below(tmp_path):
    assert len(read(tmp_path, HEAD + "rosa,2026-01-05,lameness,2\n\n\nemma,2026-01-06,lameness,1\n")) == 2
    with pytest.raises(RecordError, match="line 5: kind 'lamness' is unknown"):
        read(tmp_path, HEAD + "rosa,2026-01-05,lameness,2\n\n\nemma,2026-01-06,lamness,1\n")


def test_many_wrong_lines_are_counted(tmp_path):
    with pytest.raises(RecordError, match=r"line 6: .* and 3 more"):
        read(tmp_path, HEAD + "berta,2026-01-05,lameness,2\n" * 8)


def test_a_missing_column_line_or_file_is_refused(tmp_path):
    with pytest.raises(RecordError, match="has no line below its header"):
        read(tmp_path, HEAD)
    with pytest.raises(RecordError, match="lacks the columns kind, value"):
        read(tmp_path, "animal,date\nrosa,2026-01-05\n")
    with pytest.raises(RecordError, match="cannot be read"):
        read_outcomes(tmp_path / "absent.csv", {"rosa"}, FIRST, LAST)
