"""The page: complete, self-contained, honest about what is missing."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from datamodules.files import write_json
from datamodules.images import encode_jpeg
from pl_distill.errors import ConfigError
from pl_distill.evaluation.caveats import one_seed
from pl_distill.evaluation.curves import read_curves
from pl_distill.evaluation.failures import Failure, write_failures
from pl_distill.evaluation.mot import TrackingCounts
from pl_distill.evaluation.report import report
from pl_distill.evaluation.results import (
    ClipReplay,
    ClipResult,
    Comparison,
    ModelIdentity,
    ModelResult,
    Results,
    ResultsError,
    Settings,
    read_results,
    write_results,
)
from pl_distill.evaluation.tables import ReportTable, write_report_table

VOID = {"meta", "img", "br", "link", "use"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects ids, references, text by tag and picture sources."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.sources: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "data", "srcset", "action", "poster"):
                self.sources.append(value)
            self.references |= set(re.findall(r"url\(#([^)]+)\)", value or ""))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def scores(misses: int, switches: int = 0):
    counts = TrackingCounts(20, 100, 100 - misses, 100 - misses, switches, misses, id_true_positives=90 - misses)
    return counts.scores()


def make(
    folder: Path, names=("2026_01_26/000000", "2026_01_27/000001"), roles=("teacher", "student"), **changes
) -> Path:
    """Write an evaluation with its records and pictures, without having run one."""
    models = {}
    for number, role in enumerate(roles):
        clips = {}
        for name in names:
            stem = f"{role}/{abs(hash(name))}"
            picture = folder / f"{stem}.jpg"
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(encode_jpeg(np.full((90, 1600, 3), 40 * (number + 1), np.uint8), 80))
            record = {"schema": 2, "identity": {}, "seconds": 2.0, "peak_rss_bytes": 2**30, "peak_vram_bytes": None}
            record |= {"update_ms": [50.0, 60.0, 55.0], "rss_bytes": [2**30] * 3, "objects": [2, 3, 3]}
            record |= {"session_bytes": [2**20, 2**21, 2**21]}
            record |= {"animals": [3, None, 3], "pictures": [1], "tracks_sha256": "", "masks_sha256": ""}
            write_json(folder / f"{stem}.json", record)
            replay = ClipReplay(
                name[:10], 3, 18.2, 2.0, 2**30, None, "t.txt", "m.txt", f"{stem}.json", {"1": f"{stem}.jpg"}, None
            )
            clips[name] = ClipResult(scores(10 + 5 * number, number), replay)
        sha256 = f"{changes.get('seed', 3):02d}" * 32 if role == "student" else "ab" * 32
        identity = ModelIdentity(f"runs/{role}", "sam3", sha256, 3_500_000, 2_000_000 >> number, 500_000, 112)
        models[role] = ModelResult(scores(10 + 5 * number, number), clips, identity, 18.2, 4.0, 2**30)
    mutual = None
    if len(roles) > 1:
        mutual = Comparison(scores(1), {name: ClipResult(scores(1)) for name in names}, mask_overlap=77.5)
    values = {"settings": Settings("runs/shards", "pen", "test", "pig", {"mode": "exact"}, 0.5, None, "cpu")}
    values |= {"split_sha256": "cd" * 32, "seed": 3, "versions": {"torch": "2.9"}, "seconds": 12.0}
    values |= {"peak_rss_bytes": 2**30, "models": models, "student_vs_teacher": mutual, "notes": ["mind the straw"]}
    write_results(folder / "results.json", Results(**{**values, **changes}))
    return folder / "results.json"


def page(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    return Page(text)


def test_a_report_needs_no_other_file_and_no_network(tmp_path):
    written = report(make(tmp_path))
    assert written == tmp_path / "report.html"
    found = page(written)
    assert found.sources
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in found.sources)
    text = written.read_text()
    assert "http" not in text
    assert "@import" not in text
    assert "script" not in found.tags
    assert "link" not in found.tags


def test_plots_on_one_page_do_not_share_identifiers(tmp_path):
    found = page(report(make(tmp_path)))
    # MOTA, IDF1 (there is no HOTA here), errors, time, slow frames, session, memory, tracks
    assert found.tags.count("svg") == 8
    assert len(found.ids) == len(set(found.ids))
    assert found.references <= set(found.ids)
    assert {source[1:] for source in found.sources if source.startswith("#")} <= set(found.ids)


def test_plots_take_the_pages_colours(tmp_path):
    text = report(make(tmp_path)).read_text()
    assert "#0101" not in text
    for variable in ("ink", "muted", "grid", "teacher", "student"):
        assert f": var(--{variable})" in text
        assert text.count(f"--{variable}: #") == 2  # light and dark


def test_a_report_says_what_was_found_and_what_to_mind(tmp_path):
    found = page(report(make(tmp_path))).text
    assert "mind the straw" in found
    assert "90.00 84.00 -6.00" in found  # MOTA: 10 misses; 15 misses and a switch
    assert "77.50" in found  # its masks
    assert "99.00" in found  # the student with the teacher's tracks as truth
    assert "not established" in found
    assert "2 clips, 2 days, 1 seed" in found
    for thing in ("runs/teacher", "runs/shards", "prompt “pig”", "mode exact", "torch 2.9", "abababababababab"):
        assert thing in found
    assert "MOTA, points lost by the student 1.68 6.00 -" in found
    assert "parameters, both necks included 40.66M 1.50M 40,621,360" in found
    assert "÷ 7.77 not part of this evaluation ÷ 7.77" in found


def test_one_model_alone_has_a_report_without_comparison(tmp_path):
    found = page(report(make(tmp_path, roles=("model",)))).text
    assert "How well does the model track?" in found
    assert "MOTA, points lost by the student 1.68 - -" in found
    assert "Is the difference real?" not in found


def test_undefined_scores_are_shown_as_such(tmp_path):
    path = make(tmp_path)
    content = json.loads(path.read_text())
    for block in (content["teacher"], content["student"], content["student_vs_teacher"]):
        block["overall"] = dict.fromkeys(block["overall"], 0) | dict.fromkeys(("mota", "idf1", "hota"))
        block["clips"] = {
            name: {**clip, **dict.fromkeys(("mota", "idf1", "hota")), "truth_boxes": 0, "track_boxes": 0}
            for name, clip in block["clips"].items()
        }
    path.write_text(json.dumps(content))
    found = page(report(path)).text
    assert "MOTA % 100 less misses, false positives and switches per animal and frame. - - -" in found
    assert "nan" not in found.lower().split()
    assert "None" not in found


def test_names_are_text_and_never_markup(tmp_path):
    name = "<script>alert(1)</script> & 2026"
    path = make(tmp_path, names=(name,), notes=["<b>bold</b> and `code`"])
    found = page(report(path))
    assert name in found.text
    assert "<b>bold</b> and code" in found.text
    assert "script" not in found.tags


def test_large_pictures_are_shrunk_and_only_the_worst_clips_shown(tmp_path):
    names = tuple(f"2026_01_26/{number:06d}" for number in range(8))
    found = page(report(make(tmp_path, names=names)))
    assert found.tags.count("img") == 6 * 2
    assert "The 6 clips with the lowest MOTA, of 8." in found.text


def test_results_without_their_files_still_give_a_report_that_says_so(tmp_path):
    path = make(tmp_path / "whole").rename(tmp_path / "results.json")
    found = page(report(path, tmp_path / "deep" / "page.html"))
    assert "4 records of replays are not beside the results any more" in found.text
    assert found.tags.count("img") == 0
    assert (tmp_path / "deep" / "page.html").is_file()


def test_a_folder_stands_for_its_results(tmp_path):
    make(tmp_path)
    assert report(tmp_path) == tmp_path / "report.html"
    with pytest.raises(ResultsError, match="is not there"):
        report(tmp_path / "elsewhere")


def write_scalars(folder: Path, start: int, stop: int, offset: float = 0.0) -> None:
    with SummaryWriter(str(folder)) as writer:
        for step in range(start, stop):
            writer.add_scalar("train/loss", step + offset, step)
            writer.add_scalar("train/direction", 2.0 * step, step)
            writer.add_scalar("lr-AdamW", 0.1, step)
        writer.add_scalar("val/loss", 5.0, stop - 1)


def test_curves_of_a_resumed_training_are_one(tmp_path):
    write_scalars(tmp_path / "version_0", 0, 6)
    write_scalars(tmp_path / "version_1", 4, 9, offset=100)
    curves = read_curves(tmp_path)
    assert list(curves) == ["loss", "direction"]  # and not the learning rate, which is of no stage
    assert curves["loss"]["train"].steps == tuple(range(9))
    assert curves["loss"]["train"].values == (0, 1, 2, 3, 104, 105, 106, 107, 108)  # the later run is believed
    assert curves["loss"]["val"].steps == (5, 8)


def test_training_curves_are_drawn_where_there_are_any(tmp_path):
    path = make(tmp_path / "scores")
    assert "How the student learned" not in page(report(path)).text
    write_scalars(tmp_path / "logs", 0, 5)
    found = page(report(path, logs=tmp_path / "logs"))
    assert "How the student learned" in found.text
    assert found.tags.count("svg") == 8 + 2
    write_scalars(tmp_path / "scores" / "logs", 0, 5)  # beside the results they are found without being named
    assert "How the student learned" in page(report(path)).text


def test_logs_without_curves_are_refused(tmp_path):
    path = make(tmp_path)
    (tmp_path / "logs").mkdir()
    with pytest.raises(ConfigError, match="holds no train/ or val/ scalars"):
        report(path, logs=tmp_path / "logs")
    assert not (tmp_path / "report.html").exists()


def add_failures(path: Path, strip: str | None = "failures/student/strip.jpg") -> None:
    """Give the student of an evaluation two errors, one of them perhaps with a strip, and the teacher none."""
    if strip is not None:
        (path.parent / strip).parent.mkdir(parents=True)
        (path.parent / strip).write_bytes(encode_jpeg(np.full((200, 1016, 3), 120, np.uint8), 80))
    common = {"clip": "2026_01_26/000000", "animal": "5", "box_xyxy": [1.0, 2.0, 3.0, 4.0], "place": "top left"}
    miss = Failure(kind="miss", reason="lying pile", tracks=[], first_frame=6, last_frame=11, start_s=1.0, end_s=1.83,
                   boxes=6, strip=strip, **common)  # fmt: skip
    switch = Failure(kind="switch", reason="crossing", tracks=[3, 7], first_frame=2, last_frame=3, start_s=0.33,
                     end_s=0.5, boxes=2, **common)  # fmt: skip
    write_failures(path.parent / "failures" / "student.json", [switch, miss])
    write_failures(path.parent / "failures" / "teacher.json", [])
    content = json.loads(path.read_text())
    for role in ("teacher", "student"):
        content[role]["failures"] = f"failures/{role}.json"
    path.write_text(json.dumps(content))


def test_the_worst_errors_stand_on_the_first_page_with_their_pictures(tmp_path):
    path = make(tmp_path)
    before = page(report(path)).tags.count("img")
    add_failures(path)
    found = page(report(path))
    assert found.tags.count("img") == before + 1
    assert "The 2 most costly errors of the student" in found.text
    worst = "miss lying pile animal 5 has no track, from 1.0 to 1.8 s, top left 2026_01_26/000000, 6 boxes"
    assert worst in found.text
    assert found.text.index(worst) < found.text.index("animal 5: identity 3 becomes 7, at 0.5 s, top left")
    assert "lying pile it lies against another animal that lies - - - - 1 (6) -" in found.text
    assert "all - - - 1 (2) 1 (6) -" in found.text
    assert "Every error of the student (2)" in found.text
    assert "The same place before, during and after." in found.text
    assert "There are no pictures" not in found.text


def test_errors_without_pictures_say_why_there_are_none(tmp_path):
    path = make(tmp_path / "no video")
    add_failures(path, strip=None)
    found = page(report(path)).text
    assert "miss lying pile animal 5 has no track" in found
    assert "There are no pictures: the evaluation ran without video, with which they are drawn. What an error" in found
    assert "The same place before, during and after." not in found

    path = make(tmp_path / "lost")
    add_failures(path)
    (path.parent / "failures" / "student" / "strip.jpg").unlink()
    assert "There are no pictures: their files are not beside the results any more." in page(report(path)).text


def test_students_of_other_seeds_are_compared_together(tmp_path):
    note = "2 clips of 2 days and one seed: differences between teacher and student are not established"
    paths = [make(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    for path in paths:
        results = read_results(path)
        write_results(path, replace(results, notes=["mind the straw", one_seed(results.models)]))
    assert note in page(report(paths[0])).text
    together = page(report(paths[0], seeds=paths[1:])).text
    assert "2 clips, 2 days, 3 seeds" in together
    assert "mind the straw" in together
    assert note not in together


def test_each_seed_has_a_line_and_what_is_of_the_first_alone_says_so(tmp_path):
    paths = [make(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    better = scores(9)
    results = read_results(paths[2])
    models = results.models | {"student": replace(results.models["student"], overall=better)}
    write_results(paths[2], replace(results, models=models))
    together = page(report(paths[0], seeds=paths[1:])).text
    assert "Seed by seed" in together
    assert f"{paths[1]} 90.00 84.00 -6.00 " in together
    assert f"{paths[2]} 90.00 91.00 +1.00 " in together
    mean = (84 + 84 + 91) / 3
    assert f"mean 90.00 {mean:.2f} {mean - 90:+.2f} " in together
    for heading in ("Scores, speed and size", "Clip by clip", "Beside the paper", "Time and memory"):
        assert f"{heading} first of 3 seeds" in together
    assert "Is the difference real? first" not in together
    alone = page(report(paths[0])).text
    assert "Seed by seed" not in alone
    assert "first of" not in alone


def test_what_are_no_seeds_of_one_comparison_is_refused(tmp_path):
    first = make(tmp_path / "a", seed=0)
    settings = Settings("runs/shards", "pen", "test", "pig", {"mode": "bounded"}, 0.5, None, "cpu")
    strangers = {
        r"has the very student of .*a": {"seed": 0},
        "is of other clips": {"names": ("2026_01_29/000000",)},
        "compares no student": {"roles": ("model",)},
        "is of other settings": {"settings": settings},
    }
    for number, (message, changes) in enumerate(strangers.items(), start=1):
        other = make(tmp_path / str(number), **{"seed": number, **changes})
        with pytest.raises(ConfigError, match=message):
            report(first, seeds=[other])
    other = make(tmp_path / "of another teacher", seed=9)
    other.write_text(other.read_text().replace("ab" * 32, "ba" * 32))
    with pytest.raises(ConfigError, match="is of other teachers"):
        report(first, seeds=[other])


def test_baselines_stand_beside_ours_with_their_difference(tmp_path):
    path = make(tmp_path)
    content = json.loads(path.read_text())
    content["baselines"] = {"student-iou": content["teacher"]}
    path.write_text(json.dumps(content))
    found = page(report(path)).text
    assert "detector + IoU : The same detector in every frame" in found
    assert re.search(r"detector \+ IoU 90.00 .* -6.00 -6.00 to -6.00 not established", found)
    by_clip = found[found.index("Clip by clip") :]
    assert by_clip.count("student, detector + IoU 90.00") == 3  # two clips, and all


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
