"""Tables that other commands leave for the report: ``NAME.table.json``, so that the report knows none of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datamodules.files import atomic_path, write_json
from pl_distill.evaluation.results import ResultsError
from pl_distill.evaluation.typed_json import JsonTypeError, parse_dataclass

SCHEMA = 1
SUFFIX = ".table.json"


@dataclass(frozen=True)
class ReportTable:
    """A table as it is shown.

    Args:
        title: Heading of its section.
        text: One or two sentences: how it was made, how to read it.
        columns: Headings.
        rows: Cells, as many in each row as there are columns; the first is the row's name.
    """

    title: str
    text: str
    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return the table, and below it the text."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), "", self.text, ""])


def write_arms(folder: Path, name: str, table: ReportTable, content: dict[str, Any]) -> tuple[Path, Path]:
    """Write what a command found out over several arms, and its table for the report, into `folder`.

    Args:
        folder: Of the command's output.
        name: Of the command; the files are ``NAME.json`` and ``NAME.md``.
        table: As it is shown.
        content: As plain values, for programs.

    Returns:
        The two files.
    """
    write_report_table(folder, name, table)
    return write_both(folder, name, content, table.markdown())


def write_both(folder: Path, name: str, content: dict[str, Any], markdown: str) -> tuple[Path, Path]:
    """Write ``NAME.json`` and ``NAME.md`` into `folder`, each whole or not at all, and return their paths."""
    json_path, text_path = folder / f"{name}.json", folder / f"{name}.md"
    write_json(json_path, content)
    with atomic_path(text_path) as temporary:
        temporary.write_text(markdown, encoding="utf-8")
    return json_path, text_path


def write_report_table(folder: Path, name: str, table: ReportTable) -> Path:
    """Write ``NAME.table.json`` into `folder`, whole or not at all, and return its path."""
    path = folder / f"{name}{SUFFIX}"
    write_json(path, {"schema": SCHEMA, **asdict(table)})
    return path


def read_report_tables(folders: Sequence[Path]) -> list[ReportTable]:
    """Read the tables of some folders, by name.

    Raises:
        ResultsError: A file is no table, or a row has another number of cells than there are columns.
    """
    return [_read(path) for folder in folders for path in sorted(folder.glob(f"*{SUFFIX}"))]


def _read(path: Path) -> ReportTable:
    fix = "Write it again, or take it away."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        table = parse_dataclass(ReportTable, content, "")
    except (OSError, ValueError) as error:
        raise ResultsError(path, f"cannot be read ({error})", "a table", fix) from error
    except JsonTypeError as error:
        raise ResultsError(f"{path}, {error.key}", error.found, error.expected, fix) from error
    if content.get("schema") != SCHEMA:
        raise ResultsError(path, f"has the schema {content.get('schema')!r}", str(SCHEMA), fix)
    for number, row in enumerate(table.rows):
        if len(row) != len(table.columns):
            raise ResultsError(f"{path}, rows[{number}]", f"has {len(row)} cells", f"{len(table.columns)}", fix)
    return table
