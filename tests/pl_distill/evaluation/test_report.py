"""The page: complete, self-contained, honest about what is missing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from datamodules.files import write_json
from datamodules.images import encode_jpeg
from pl_distill.errors import ConfigError
from pl_distill.evaluation.curves import read_curves
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
    write_results,
)

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
            record = {"schema": 1, "identity": {}, "seconds": 2.0, "peak_rss_bytes": 2**30, "peak_vram_bytes": None}
            record |= {"update_ms": [50.0, 60.0, 55.0], "rss_bytes": [2**30] * 3, "objects": [2, 3, 3]}
            record |= {"animals": [3, None, 3], "pictures": [1], "tracks_sha256": "", "masks_sha256": ""}
            write_json(folder / f"{stem}.json", record)
            replay = ClipReplay(
                name[:10], 3, 18.2, 2.0, 2**30, None, "t.txt", "m.txt", f"{stem}.json", {"1": f"{stem}.jpg"}, None
            )
            clips[name] = ClipResult(scores(10 + 5 * number, number), replay)
        identity = ModelIdentity(f"runs/{role}", "sam3", "ab" * 32, 3_500_000, 2_000_000 >> number, 500_000, 112)
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
    assert found.tags.count("svg") == 7  # MOTA, IDF1 (there is no HOTA here), errors, time, slow frames, memory, tracks
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
    assert "93.97* 92.29 -1.68" in found


def test_one_model_alone_has_a_report_without_comparison(tmp_path):
    found = page(report(make(tmp_path, roles=("model",)))).text
    assert "How well does the model track?" in found
    assert "Beside the paper" not in found
    assert "difference" not in found


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
    assert found.tags.count("svg") == 7 + 2
    write_scalars(tmp_path / "scores" / "logs", 0, 5)  # beside the results they are found without being named
    assert "How the student learned" in page(report(path)).text


def test_logs_without_curves_are_refused(tmp_path):
    path = make(tmp_path)
    (tmp_path / "logs").mkdir()
    with pytest.raises(ConfigError, match="holds no train/ or val/ scalars"):
        report(path, logs=tmp_path / "logs")
    assert not (tmp_path / "report.html").exists()
