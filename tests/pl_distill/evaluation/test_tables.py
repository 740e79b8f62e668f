import json

import pytest

from datamodules.files import write_json
from pl_distill.errors import ConfigError
from pl_distill.evaluation.report import report
from pl_distill.evaluation.results import ResultsError
from pl_distill.evaluation.tables import ReportTable, write_report_table
from tests.pl_distill.evaluation.reporting import make, page


def test_tables_of_other_commands_are_shown(tmp_path):
    path = make(tmp_path / "scores")
    write_report_table(
        tmp_path / "other", "budget", ReportTable("Budget", "In `GiB`.", ["part", "size"], [["trunk", "1.7"]])
    )
    rows = [{"domain": name, "role": "student", "mota": 50.0, "idf1": 60.0} for name in ("day", "dusk")]
    write_json(tmp_path / "other" / "transfer.json", {"schema": 1, "rows": rows})
    found = page(report(path, extras=[tmp_path / "other"]))
    assert "Budget In GiB . part size trunk 1.7" in found.text
    assert "MOTA by domain" in found.text
    assert found.tags.count("svg") == 8 + 2
    with pytest.raises(ConfigError, match=r"holds no transfer\.json and no table"):
        report(path, extras=[tmp_path])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [["trunk"]]}, r"rows\[0\]: has 1 cells, expected 2"),
        ({"columns": "part"}, "columns"),
        ({"schema": 2}, "has the schema 2"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, change, message):
    path = make(tmp_path)
    table = write_report_table(tmp_path, "budget", ReportTable("Budget", "", ["part", "size"], []))
    table.write_text(json.dumps(json.loads(table.read_text()) | change))
    with pytest.raises(ResultsError, match=message):
        report(path)
