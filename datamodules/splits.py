"""Which recording day belongs to training, validation or test.

Clips of one day show the same animals on the same straw, and neighbouring frames are near copies: days are the
smallest unit that may be separated. A day that no part claims, or that two claim, is an error, never a default.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import date, datetime
from importlib.resources.abc import Traversable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from datamodules.errors import SplitError
from datamodules.recipes import shipped_recipes

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, order=True)
class DateRange:
    """Days from `first` to `last`, both included."""

    first: date
    last: date

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def __str__(self) -> str:
        return (
            format_day(self.first) if self.first == self.last else "..".join(map(format_day, (self.first, self.last)))
        )


@dataclass(frozen=True)
class Split:
    """Days by part.

    Args:
        name: What messages call it: the file's name without its ending.
        train: Ranges of days, sorted.
        val: Ranges of days, sorted.
        test: Ranges of days, sorted.

    Raises:
        SplitError: Two ranges share a day, or the split claims no day at all.
    """

    name: str
    train: tuple[DateRange, ...]
    val: tuple[DateRange, ...]
    test: tuple[DateRange, ...]

    def __post_init__(self) -> None:
        ranges = sorted((days, part) for part in PARTS for days in self.days(part))
        if not ranges:
            raise SplitError(self.name, "claims no day", "days for train, val or test", "Add them to the split's file.")
        for (earlier, part), (later, other) in pairwise(ranges):
            if later.first <= earlier.last:
                raise SplitError(
                    self.name,
                    f"has {format_day(later.first)} both in {part} ({earlier}) and in {other} ({later})",
                    "every day at most once",
                    "Shorten one of the two ranges.",
                )

    def days(self, part: Part) -> tuple[DateRange, ...]:
        """Return the ranges of one part."""
        ranges: tuple[DateRange, ...] = getattr(self, part)
        return ranges

    def part_of(self, day: str) -> Part:
        """Return the part that claims a day, ``YYYY_MM_DD``.

        Raises:
            SplitError: The text is no day, or no part claims it.
        """
        parsed = parse_day(self.name, day)
        for part in PARTS:
            if any(parsed in days for days in self.days(part)):
                return part
        raise SplitError(
            f"split {self.name}",
            f"puts {day} nowhere",
            "; ".join(f"{part} {', '.join(map(str, self.days(part))) or 'none'}" for part in PARTS),
            "Add the day to one part of the split, or leave its clips out.",
        )

    @property
    def sha256(self) -> str:
        """Hash of the ranges by part: canonical JSON, so that a file's name, comments and order do not matter."""
        content = {part: sorted(map(str, self.days(part))) for part in PARTS}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load_split(name_or_path: str | Path) -> Split:
    """Read a split from YAML: ``train``, ``val`` and ``test``, each a list of ``YYYY_MM_DD`` or ``first..last``.

    Args:
        name_or_path: A shipped split (``edinburgh``, ``pen``), or the path of a file, which ends in ``.yaml``.

    Raises:
        SplitError: There is no such split, or its file is not as described.
    """
    where = str(name_or_path)
    named = not where.endswith((".yaml", ".yml"))
    path: Traversable | Path | None = shipped_recipes("splits").get(where) if named else Path(where)
    if path is None or not path.is_file():
        raise SplitError(
            f"split {where}",
            "is not there",
            f"one of {', '.join(shipped_recipes('splits'))}, or the path of a .yaml file",
            "Check the spelling.",
        )
    try:
        content = yaml.safe_load(path.read_bytes())  # bytes: a wrong encoding is YAML's error, too
    except (yaml.YAMLError, ValueError) as error:  # ValueError: YAML reads 2019-13-01 as a date
        raise SplitError(where, f"is not YAML ({error})", "train, val and test", "Correct the file.") from error
    if not isinstance(content, dict) or not set(content) <= set(PARTS):
        found = f"has the keys {', '.join(map(str, content))}" if isinstance(content, dict) else "holds no keys"
        raise SplitError(where, found, "train, val and test", "Rename or remove the other keys.")
    parts = {part: tuple(sorted(_ranges(where, part, content.get(part)))) for part in PARTS}
    return Split(path.name.rpartition(".")[0], **parts)


def _ranges(where: str, part: str, items: Any) -> list[DateRange]:
    if items is None:
        return []
    if not isinstance(items, list):
        raise SplitError(where, f"has {part}: {items!r}", "a list of days", f"Write {part}: [{items}].")
    ranges = []
    for item in items:
        first, dots, last = _text(item).partition("..")
        days = DateRange(parse_day(where, first), parse_day(where, last if dots else first))
        if days.last < days.first:
            raise SplitError(
                where, f"has {part} {item}, which ends before it begins", "first..last", "Exchange the days."
            )
        ranges.append(days)
    return ranges


def _text(item: object) -> str:
    """Undo YAML 1.1, which reads an unquoted 2019_11_05 as the number 20191105 and 2019-11-05 as a date."""
    if isinstance(item, date):
        return format_day(item)
    text = str(item)
    return f"{text[:4]}_{text[4:6]}_{text[6:]}" if isinstance(item, int) and len(text) == 8 else text


def parse_day(where: str, text: str) -> date:
    """Read ``YYYY_MM_DD``; a SplitError about `where` if it is none."""
    try:
        if re.fullmatch(r"\d{4}_\d{2}_\d{2}", text.strip()):
            return datetime.strptime(text.strip(), "%Y_%m_%d").date()
    except ValueError:
        pass
    raise SplitError(where, f"names the day {text!r}", "a calendar day as YYYY_MM_DD", "Write it like 2019_11_05.")


def format_day(day: date) -> str:
    """Write a day as ``YYYY_MM_DD``."""
    return day.strftime("%Y_%m_%d")
