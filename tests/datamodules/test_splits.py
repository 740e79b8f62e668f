from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import SplitError
from datamodules.splits import PARTS, DateRange, Split, format_day, load_split, parse_day

EDINBURGH_CLIPS = {
    "train": [
        *["2019_11_05/000002", "2019_11_05/000009", "2019_11_11/000016", "2019_11_11/000028", "2019_11_11/000036"],
        "2019_11_15/000033",
    ],
    "val": ["2019_11_22/000010", "2019_11_28/000113"],
    "test": ["2019_12_02/000005", "2019_12_02/000208", "2019_12_10/000060", "2019_12_10/000078"],
}


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write


def test_every_annotated_clip_of_edinburgh_has_its_part():
    split = load_split("edinburgh")
    assert split.name == "edinburgh"
    for part, clips in EDINBURGH_CLIPS.items():
        assert {split.part_of(clip.partition("/")[0]) for clip in clips} == {part}


def test_the_pen_has_days_for_all_parts():
    split = load_split("pen")
    days = [split.part_of(f"2026_01_{day:02}") for day in range(1, 32)]
    assert [days.count(part) for part in PARTS] == [20, 5, 6]


def test_a_day_that_no_part_claims_is_refused(refused):
    refused(
        SplitError,
        lambda: load_split("edinburgh").part_of("2019_11_18"),
        where="split edinburgh",
        found="puts 2019_11_18 nowhere",
        expected="train 2019_11_05..2019_11_15; val 2019_11_22, 2019_11_28; test 2019_12_01..2019_12_31",
        fix="Add the day to one part of the split",
    )


def test_the_hash_is_that_of_the_days_and_not_of_how_they_are_written(written):
    split = load_split(written("val: ['2019_11_28', 2019-11-22]\ntrain: [2019_11_05..2019_11_15]\ntest: []\n"))
    same = load_split(written("# the same\ntrain:\n- 2019_11_05..2019_11_15\nval: [2019_11_22, 2019_11_28]\n"))
    other = load_split(written("train: [2019_11_05..2019_11_15]\nval: [2019_11_22]\n"))
    assert split.name == "mine"
    assert split.sha256 == same.sha256 != other.sha256
    assert len(split.sha256) == 64


def test_the_shipped_hashes_are_pinned():
    """They stand in results: a change of a shipped split must be meant."""
    assert load_split("edinburgh").sha256.startswith("0a98195b1e54")
    assert load_split("pen").sha256.startswith("ca9189af5e63")


@pytest.mark.parametrize("text", ["2019_11_05", "2019-11-05", "'2019_11_05'"])
def test_days_survive_how_yaml_reads_them(written, text):
    assert load_split(written(f"train: [{text}]")).part_of("2019_11_05") == "train"


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        ("train: [2019_11_05", "is not YAML", "train, val and test"),
        ("train: [2019-13-01]", "is not YAML (month must be in 1..12", "train, val and test"),
        ("training: [2019_11_05]", "has the keys training", "train, val and test"),
        ("- 2019_11_05", "holds no keys", "train, val and test"),
        ("", "holds no keys", "train, val and test"),
        ("train: 2019_11_05", "has train: 20191105", "a list of days"),
        ("train: [2019_02_30]", "names the day '2019_02_30'", "a calendar day"),
        ("train: [monday]", "names the day 'monday'", "a calendar day"),
        ("train: [2019_11_15..2019_11_05]", "which ends before it begins", "first..last"),
    ],
)
def test_a_file_of_another_form_is_refused(written, refused, text, found, expected):
    path = written(text)
    refused(SplitError, lambda: load_split(path), where=path, found=found, expected=expected)


def test_a_file_that_is_no_text_is_refused(tmp_path, refused):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"train: [2019_11_05] # \xe9\xff")
    refused(SplitError, lambda: load_split(path), where=path, found="is not YAML")


def test_a_day_in_two_parts_is_refused(written, refused):
    path = written("train: [2019_11_05..2019_11_15]\ntest: [2019_11_15]\n")
    refused(
        SplitError,
        lambda: load_split(path),
        where="mine",
        found="has 2019_11_15 both in train (2019_11_05..2019_11_15) and in test (2019_11_15)",
        expected="every day at most once",
    )


def test_a_split_without_days_is_refused(written, refused):
    refused(SplitError, lambda: load_split(written("train: []")), where="mine", found="claims no day")


def test_an_unknown_split_is_refused_with_those_there_are(tmp_path, refused):
    refused(SplitError, lambda: load_split("edinburg"), where="split edinburg", expected="edinburgh, pen")
    path = tmp_path / "none.yaml"
    refused(SplitError, lambda: load_split(path), where=path, found="is not there")


@given(st.lists(st.tuples(st.sampled_from(PARTS), st.integers(0, 60), st.integers(0, 5)), min_size=1, max_size=6))
def test_every_day_is_in_one_part_or_refused(ranges):
    start = date(2020, 1, 1)
    days = {part: [] for part in PARTS}
    for part, first, length in ranges:
        days[part].append(DateRange(start + timedelta(first), start + timedelta(first + length)))
    claims = [[part for part in PARTS for one in days[part] if start + timedelta(day) in one] for day in range(70)]
    try:
        split = Split("s", *(tuple(sorted(days[part])) for part in PARTS))
    except SplitError:
        assert any(len(parts) > 1 for parts in claims)
        return
    for day, parts in enumerate(claims):
        text = format_day(start + timedelta(day))
        if parts:
            assert [split.part_of(text)] == parts
        else:
            with pytest.raises(SplitError):
                split.part_of(text)


@given(st.dates(date(1000, 1, 1)))
def test_days_are_read_as_they_are_written(day):
    assert parse_day("here", format_day(day)) == day
