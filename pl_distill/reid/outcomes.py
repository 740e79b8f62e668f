"""What happened to the animals: disease, lameness, reproduction, growth; a table that the farm keeps.

Columns: animal, date (YYYY-MM-DD), kind, value. CSV or Parquet. A value of 0 says that there was nothing: a sheet of
scores lists sound animals, too. Of growth any number is a value.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal, get_args

import pandas as pd
import pyarrow as pa

from pl_distill.reid.record_files import RecordError

Kind = Literal["disease", "lameness", "reproduction", "growth"]
KINDS = get_args(Kind)
COLUMNS = ("animal", "date", "kind", "value")


@dataclass(frozen=True)
class Outcome:
    """One line of the table.

    Args:
        animal: Its name, as in the record.
        day: When it was found.
        kind: What it was.
        value: Its grade, 0 where there was nothing; of growth the gain, in any unit.
    """

    animal: str
    day: date
    kind: Kind
    value: float

    @property
    def is_case(self) -> bool:
        """Whether something happened."""
        return self.kind == "growth" or self.value > 0


def read_outcomes(
    path: Path, animals: Collection[str], first: date, last: date, timezone: str = "UTC"
) -> list[Outcome]:
    """Read a table and check it against a record.

    Args:
        path: .csv or .parquet.
        animals: Who is in the record.
        first: First day of the record.
        last: Its last day.
        timezone: Of days, where the table has instants of a time zone of their own.

    Raises:
        RecordError: The file is absent or unreadable, lacks a column, has no line, names an unknown animal or kind, has
            no number where one belongs or a grade below 0, or a day outside of the record. All wrong lines are named,
            up to five.
    """
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path).reset_index(drop=True)
        else:
            # An animal may be called NA; blank lines are kept until the lines have their numbers.
            table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False)
            table = table[(table != "").any(axis=1)]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RecordError(path, f"cannot be read ({error})", "a CSV or Parquet table", "Correct --outcomes.") from error
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise RecordError(path, f"lacks the columns {', '.join(missing)}", ", ".join(COLUMNS), "Add them.")
    if table.empty:
        raise RecordError(path, "has no line below its header", "an outcome or more", "Add them.")
    # Without a format 03/02/2026 would be taken for the 2nd of March; a column of dates or times goes through as it is.
    days = pd.to_datetime(table["date"], format="%Y-%m-%d", errors="coerce")
    if days.dt.tz is not None:
        days = days.dt.tz_convert(timezone)
    values = pd.to_numeric(table["value"], errors="coerce")
    outcomes, wrong = [], []
    for number, (line, animal, kind, day, value) in enumerate(
        zip(table.index, table["animal"].astype(str), table["kind"].astype(str), days, values, strict=True)
    ):
        problem = None
        if animal not in animals:
            problem = f"animal '{animal}' is not in the record"
        elif kind not in KINDS:
            problem = f"kind '{kind}' is unknown"
        elif pd.isna(day):
            problem = f"date {table['date'].iloc[number]!r} is none"
        elif not math.isfinite(value):
            problem = f"value {table['value'].iloc[number]!r} is no number"
        elif kind != "growth" and value < 0:
            problem = f"value {value:g} is below 0, which is an animal without {kind}"
        elif not first <= day.date() <= last:
            problem = f"date {day.date()} is outside of the record"
        if problem is None:
            outcomes.append(Outcome(animal, day.date(), kind, float(value)))
        else:
            wrong.append(f"line {line + 2}: {problem}")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise RecordError(
            path, "; ".join(wrong[:5]) + more,
            f"animals of the record ({', '.join(sorted(animals)[:5])} ...), days {first} to {last} as YYYY-MM-DD, "
            f"kinds {', '.join(KINDS)}",
            "Correct or remove these lines. After a `reid merge` the record has the new name alone.",
        )  # fmt: skip
    return outcomes
