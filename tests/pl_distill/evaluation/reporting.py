"""An evaluation that was never run, and the page that a report makes of it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from datamodules.files import write_json
from datamodules.images import encode_jpeg
from pl_distill.evaluation.mot import TrackingCounts
from pl_distill.evaluation.results import (
    ClipReplay,
    ClipResult,
    Comparison,
    ModelIdentity,
    ModelResult,
    Results,
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
    folder: Path, names=("2026_01_26/000000", "2026_01_27/000001"), roles=("teacher", "student"), kind="sam3", **changes
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
        identity = ModelIdentity(f"runs/{role}", kind, sha256, 3_500_000, 2_000_000 >> number, 500_000, 112)
        models[role] = ModelResult(scores(10 + 5 * number, number), clips, identity, 18.2, 4.0, 2**30)
    mutual = None
    if len(roles) > 1:
        mutual = Comparison(scores(1), {name: ClipResult(scores(1)) for name in names}, mask_overlap=77.5)
    values = {"settings": Settings("runs/shards", "pen", "test", "pig", {"mode": "exact"}, 0.5, None, "cpu")}
    values |= {
        "data_sha256": "ef" * 32,
        "split_sha256": "cd" * 32,
        "seed": 3,
        "versions": {"torch": "2.9"},
        "seconds": 12.0,
    }
    values |= {"peak_rss_bytes": 2**30, "models": models, "student_vs_teacher": mutual, "notes": ["mind the straw"]}
    write_results(folder / "results.json", Results(**{**values, **changes}))
    return folder / "results.json"


def page(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    return Page(text)
