"""`pl-distill record`: the longitudinal record; build it from clips, ask it, join outcomes, draw it."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datamodules.errors import ClipError
from datamodules.files import atomic_path
from datamodules.layouts import read_clips
from datamodules.splits import parse_day
from pl_distill.errors import ConfigError
from pl_distill.evaluation import record_page
from pl_distill.evaluation.record_plots import draw_lead_times
from pl_distill.evaluation.simulated_record import draw_outcomes, number_of, simulate_hours
from pl_distill.reid.association import Association, permutations_needed
from pl_distill.reid.association import associate as test_association
from pl_distill.reid.daily import DailyTable, between, daily_table
from pl_distill.reid.longitudinal import RecordWriter, Sighting
from pl_distill.reid.outcomes import KINDS, Kind, Outcome, read_outcomes
from pl_distill.reid.pen_map import PenMap
from pl_distill.reid.record_files import day_file, drop_rows, holds_record, read_hours
from pl_distill.reid.record_files import query as ask
from pl_distill.reid.record_schema import BEHAVIOURS

DEFAULT_MAP = PenMap()


_CLIP_SLACK_MIN = 1 / 60
"""A clip may be a little longer than its number says."""


def build(
    clips: Path,
    out: Path,
    camera: str = "camera",
    map: PenMap = DEFAULT_MAP,
    first_hour: float = 7.0,
    clip_minutes: float = 5.0,
) -> None:
    """Make a record from annotated clips; `track --pool` makes one from what it follows.

    A clip's day is its folder, its time of day its number: clip 000012 of five minutes begins an hour after the first.
    Clips whose name is no number follow each other in the order of their names.
    Annotated identities count within their clip only, so that the clip's name is part of the animal's. Behaviours have
    columns if any clip has labels of them, feeder and drinker figures if the map has their places.
    Example: pl-distill record build --clips data/pen --out runs/record --map.pixels_per_m 100

    Args:
        clips: Folder of recordings: day folders (Edinburgh, drawn pens) or sequences (MOTChallenge).
        out: Folder of the record; what it has of these clips on their day is replaced, other clips stay.
        camera: Name of the camera.
        map: Feeder, drinkers and scale in its picture.
        first_hour: Time of day at which clip 000000 begins, UTC.
        clip_minutes: Length of the clips as numbered.
    """
    for option, value, is_possible in (
        ("first_hour", first_hour, 0 <= first_hour < 24),
        ("clip_minutes", clip_minutes, 0 < clip_minutes < 24 * 60),
    ):
        if not is_possible:
            raise ConfigError(f"--{option}", f"is {value:g}", "within a day", "Correct it.")
    found = sorted(read_clips(clips), key=lambda clip: clip.name)
    for clip in found:
        if (minutes := clip.num_frames / clip.fps / 60) > clip_minutes + _CLIP_SLACK_MIN:
            raise ClipError(
                clip.name, f"lasts {minutes:.1f} minutes", f"at most --clip_minutes ({clip_minutes:g})",
                "Give the clips' own length: the next one begins that long after it.",
            )  # fmt: skip
    named = any(one for clip in found for animals in clip.annotations.values() for one in animals.behaviours)
    rows, unnumbered = 0, Counter[str]()
    with RecordWriter(out, camera, map, BEHAVIOURS if named else (), resume=False) as writer:
        for clip in tqdm(found, desc="read", unit="clip"):
            stem = Path(clip.name).name
            number = int(stem) if stem.isdecimal() else unnumbered[clip.day]
            unnumbered[clip.day] += 1
            hours = first_hour + clip_minutes * number / 60
            if hours >= 24:
                found_out = f"would begin {hours:.0f} hours into {clip.day}"
                expected = "clips numbered in the order of their day"
                raise ClipError(clip.name, found_out, expected, "Number them from 0, or give their --clip_minutes.")
            day = parse_day(clip.name, clip.day)
            begin = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hours)
            writer.check(begin, begin + timedelta(seconds=clip.num_frames / clip.fps))
            drop_rows(day_file(out, camera, day), f"{clip.name}:")
            for index, animals in sorted(clip.annotations.items()):
                sightings = [
                    Sighting(f"{clip.name}:{name}", box, behaviour)
                    for name, box, behaviour, visible in zip(
                        animals.identities, animals.boxes_xyxy, animals.behaviours, animals.visible, strict=True
                    )
                    if visible
                ]
                writer.observe(begin.timestamp() + index / clip.fps, sightings)
                rows += len(sightings)
    written = read_hours(out)
    print(f"{rows} sightings of {written['animal'].nunique()} animals became {len(written)} rows in {out}")


def simulate(
    out: Path,
    animals: int = 40,
    days: int = 120,
    cases: int = 10,
    walks: float = 0.6,
    lead_days: int = 6,
    seed: int = 0,
) -> None:
    """Make a record of animals that never lived, some of them lame, and the table of who: to try the other verbs on.

    Example: pl-distill record simulate --out runs/simulated

    Args:
        out: Gets the record and outcomes.csv; a folder that has a record is refused.
        animals: How many.
        days: How long.
        cases: How many become lame.
        walks: Share of its way that a lame animal still walks; 1 plants nothing.
        lead_days: Days between the beginning and the day on which it is found.
        seed: Of everything.
    """
    for option, value, least in (("animals", animals, 1), ("days", days, 1), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"--{option}", f"is {value}", f"{least} or more", "Choose another value.")
    if not 0 <= cases <= animals:
        raise ConfigError("--cases", f"is {cases} of {animals} animals", "as many or fewer", "Choose another value.")
    if not 0 <= lead_days < days:
        raise ConfigError("--lead_days", f"is {lead_days}", f"0 to {days - 1}", "Choose another value, or more --days.")
    if holds_record(out):
        raise ConfigError(
            f"--out {out}", "holds a record already", "a new folder", "Name another: herds would be mixed."
        )
    outcomes = draw_outcomes(animals, days, cases, seed)
    first = date(2026, 1, 1)
    lame = {number_of(one.animal): (one.day - first).days - lead_days for one in outcomes}
    record_page.write_record(out, simulate_hours(animals, days, seed, lame_from=lame, walks=walks))
    lines = [f"{one.animal},{one.day},{one.kind},{one.value}" for one in outcomes]
    table = out / "outcomes.csv"
    table.write_text("\n".join(["animal,date,kind,value", *lines]) + "\n", encoding="utf-8")
    print(f"record    {out}: {animals} animals, {days} days\noutcomes  {table}: {cases} lame animals")


def query(record: Path, sql: str, out: Path | None = None) -> None:
    """Ask a record in SQL; its rows are the table `hours`, its columns those of docs/animal-record.md.

    Example: pl-distill record query --record runs/record --sql "SELECT animal, sum(distance_m) FROM hours GROUP BY 1"

    Args:
        record: Folder of the record.
        sql: A SELECT of DuckDB.
        out: A .csv or .parquet file for the answer; by default it is printed.
    """
    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out {out}", "ends in neither", ".csv or .parquet", "Correct it.")
    answer = ask(record, sql)
    if out is None:
        print(answer.to_string(index=False, max_rows=200))
        return
    with atomic_path(out) as temporary:
        if out.suffix == ".csv":
            answer.to_csv(temporary, index=False)
        else:
            answer.to_parquet(temporary, index=False)
    print(f"{len(answer)} rows in {out}")


def associate(
    record: Path,
    outcomes: Path,
    kind: Kind | None = None,
    out: Path | None = None,
    days_before: int = 14,
    permutations: int = 999,
    level: float = 0.05,
    seed: int = 0,
    timezone: str = "UTC",
) -> None:
    """Ask whether the record shows an outcome, and how many days before it was found.

    Nothing after the day in question enters what is said of it. Refuses with too few animals; without --kind only
    where that is so of every kind in the table.
    Example: pl-distill record associate --record runs/record --outcomes outcomes.csv --kind lameness

    Args:
        record: Folder of the record.
        outcomes: CSV or Parquet with the columns animal, date, kind, value; a value of 0, but of growth, is no outcome.
        kind: disease, lameness, reproduction or growth; by default every kind in the table.
        out: Folder for associations.json and a picture for each kind.
        days_before: The longest lead, in days.
        permutations: How often outcomes are dealt out anew.
        level: Of significance, over all quantities and leads together.
        seed: Of the permutations.
        timezone: Of the dates in `outcomes`, as Europe/Amsterdam: days of the record begin and end in it.
    """
    if not 0 < level < 1:
        raise ConfigError("--level", f"is {level}", "a number between 0 and 1", "Choose another.")
    for option, value, least in (
        ("days_before", days_before, 0),
        ("permutations", permutations, 99),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ConfigError(f"--{option}", f"is {value}", f"{least} or more", "Choose another.")
    if (needed := permutations_needed(level)) > permutations:
        least_p = (
            f"is {permutations}: no p-value is below {1 / (permutations + 1):.2g}, and so none at the level {level}"
        )
        raise ConfigError("--permutations", least_p, f"{needed} or more", "Raise it, or raise --level.")
    table = daily_table(read_hours(record), timezone)
    happened = read_outcomes(outcomes, table.animals, table.days[0], table.days[-1], timezone)
    leads = tuple(range(days_before + 1))
    kinds = [kind] if kind else _kinds_of(happened)
    results, refused = _test_each(table, happened, kinds, leads, permutations, level, seed)
    for found in results:
        print(record_page.describe(found))
        if out is not None:
            print(f"picture   {draw_lead_times(out / f'lead-{found.kind}.png', found)}")
    last = None if results else refused.pop()
    for other in refused:
        print(f"not tested: {other}")
    if last is not None:
        raise last
    if out is not None:
        print(f"numbers   {record_page.write_associations(out / 'associations.json', results)}")


def plot(
    record: Path,
    out: Path,
    animal: str | None = None,
    outcomes: Path | None = None,
    pool: Path | None = None,
    since: str | None = None,
    until: str | None = None,
    timezone: str = "UTC",
) -> None:
    """Draw each animal's timeline, days by hours, drift with events, before and after; one page with all of them.

    With outcomes the page tells how many days before them the record shows them, as `record associate` does, and of
    the whole record. With a pool it shows the embeddings in the plane in which they differ most.
    Example: pl-distill record plot --record runs/record --pool runs/pool --outcomes outcomes.csv --out runs/plots

    Args:
        record: Folder of the record.
        out: Gets PNG files and report.html, which needs no other file.
        animal: Only this one; by default all with outcomes, or else the first six.
        outcomes: CSV or Parquet; marked in the plots, and tested.
        pool: Folder of the pool: adds pictures before and after, merges and splits, and in out/projector the embeddings
            for TensorBoard's projector.
        since: First day, YYYY_MM_DD; outcomes of other days are left out.
        until: Last day.
        timezone: Of all days and hours, those of `outcomes` among them, as Europe/Amsterdam.
    """
    first = None if since is None else parse_day("--since", since)
    last = None if until is None else parse_day("--until", until)
    everything = read_hours(record)
    hours = between(everything, first, last, timezone)
    table = daily_table(hours, timezone)
    happened: list[Outcome] = []
    found: list[Association] = []
    refused: list[ConfigError] = []
    if outcomes is not None:  # the farm's table is of the whole record, however few days of it are drawn
        whole = daily_table(everything, timezone)
        listed = read_outcomes(outcomes, whole.animals, whole.days[0], whole.days[-1], timezone)
        for one in listed:
            if one.is_case and one.animal in table.animals and table.days[0] <= one.day <= table.days[-1]:
                happened.append(one)
        found, refused = _test_each(whole, listed, _kinds_of(listed))
    if animal is not None and animal not in table.animals:
        raise ConfigError(
            f"--animal {animal}", "is not in the record", ", ".join(table.animals[:12]), "Correct the name."
        )
    chosen = [animal] if animal else list(dict.fromkeys(one.animal for one in happened)) or list(table.animals[:6])
    untested = [str(error) for error in refused]
    page = record_page.draw_page(out, hours, table, chosen, happened, pool, timezone, found, untested)
    print(f"{page} ({np.ceil(page.stat().st_size / 1e5) / 10:.1f} MB): open it in a browser, or send it")
    if pool is not None:
        print(f"projector tensorboard --logdir {out / 'projector'}")


def _kinds_of(outcomes: Sequence[Outcome]) -> list[Kind]:
    listed = {one.kind for one in outcomes}
    happened = {one.kind for one in outcomes if one.is_case}
    return [kind for kind in KINDS if kind in (happened or listed)]  # where nothing happened, the test says so


def _test_each(
    table: DailyTable,
    outcomes: Sequence[Outcome],
    kinds: Sequence[Kind],
    leads: Sequence[int] = tuple(range(15)),
    permutations: int = 999,
    level: float = 0.05,
    seed: int = 0,
) -> tuple[list[Association], list[ConfigError]]:
    """Test kinds of outcomes one by one: what was found, and why others are too rare to be tested."""
    found: list[Association] = []
    refused: list[ConfigError] = []
    for kind in kinds:
        try:
            found.append(test_association(table, outcomes, kind, leads, permutations, level, seed))
        except ConfigError as error:
            refused.append(error)
    return found, refused
