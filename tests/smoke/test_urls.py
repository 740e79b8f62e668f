"""Shards behind a real HTTP server: `predict` writes the maps of a local folder, `evaluate` finds its scores."""

import http.server
import json
import threading
from functools import partial

import pytest

from pl_distill.cli import main

pytestmark = pytest.mark.smoke
SCORES = ("mota", "idf1", "hota", "id_switches", "misses", "false_positives", "fragmentations")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def remote(cached, tmp_path):
    """The options that name the shards of `cached` by a URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(cached("tiny").shards)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [f"http://127.0.0.1:{server.server_address[1]}", str(tmp_path / "copies")]
    server.shutdown()
    server.server_close()


def test_predict_writes_the_same_maps(cached, remote, tmp_path):
    local, (url, copies) = cached("tiny"), remote
    words = ["predict", "--config", "cache/pen.yaml", "--model.teacher", str(local.teacher), "--data.shards", url]
    assert main([*words, "--data.copies.folder", copies, "--data.cache", str(tmp_path / "maps")]) == 0
    files = sorted(path.relative_to(local.cache) for path in local.cache.rglob("*.tar"))
    assert files
    for file in files:
        assert (tmp_path / "maps" / file).read_bytes() == (local.cache / file).read_bytes()


def test_evaluate_finds_the_same_scores(cached, remote, tmp_path):
    local, (url, copies) = cached("tiny"), remote
    scores = []
    for name, place in (("local", str(local.shards)), ("remote", url)):
        words = ["evaluate", "--model", str(local.teacher), "--data", place, "--out", str(tmp_path / name)]
        assert main([*words, "--split", "val", "--max_frames", "3", "--video", "false", "--copies.folder", copies]) == 0
        scores.append(json.loads((tmp_path / name / "results.json").read_text()))
    assert scores[1]["settings"]["data"] == url
    found = [{clip: {name: score[name] for name in SCORES} for clip, score in one["clips"].items()} for one in scores]
    assert found[0] == found[1]
    tracks = [sorted((tmp_path / name / "tracks").rglob("*.txt")) for name in ("local", "remote")]
    assert len(tracks[0]) > 0
    assert [path.read_bytes() for path in tracks[0]] == [path.read_bytes() for path in tracks[1]]
