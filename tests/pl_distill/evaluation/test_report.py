"""The page: complete, self-contained, honest about what is missing."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.images import encode_jpeg
from pl_distill.evaluation.failures import Failure, write_failures
from pl_distill.evaluation.mot import TrackingCounts
from pl_distill.evaluation.report import report
from pl_distill.evaluation.results import ResultsError, read_results, write_results
from tests.pl_distill.evaluation.reporting import make, page


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


def test_every_plot_has_a_name_for_those_who_do_not_see_it(tmp_path):
    text = report(make(tmp_path)).read_text()
    named = re.findall(r'<div role="img" aria-label="([^"]+)">\s*<svg', text)
    assert len(named) == text.count("<svg") == text.count('role="img"')
    assert named[:2] == ["MOTA by clip", "IDF1 by clip"]


def test_a_report_says_what_was_found_and_what_to_mind(tmp_path):
    found = page(report(make(tmp_path))).text
    assert "mind the straw" in found
    assert "90.00 84.00 -6.00" in found  # MOTA: 10 misses; 15 misses and a switch
    assert "77.50" in found  # its masks
    assert "99.00" in found  # the student with the teacher's tracks as truth
    assert "not established" in found
    assert "MOTA, points -6.00 not established 2 clips, 2 days, 1 seed" in found  # no difference without its verdict
    for thing in ("runs/teacher", "runs/shards", "prompt “pig”", "mode exact", "torch 2.9", "abababababababab"):
        assert thing in found
    assert "MOTA, points lost by the student 1.68 6.00 -" in found
    assert "parameters, both necks included 40.66M 1.50M 40,621,360" in found
    assert "÷ 7.77 not part of this evaluation ÷ 7.77" in found


def test_one_clip_of_one_day_is_no_plural(tmp_path):
    found = page(report(make(tmp_path, names=("2026_01_26/000000",)))).text
    assert "1 clip, 1 day, 1 seed" in found
    assert not re.search(r"\b1 (clips|days|seeds)\b", found)


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


def test_without_truth_no_clip_has_the_lowest_mota(tmp_path):
    path = make(tmp_path, names=tuple(f"2026_01_26/{number:06d}" for number in range(8)))
    results = read_results(path)
    unjudged = {role: replace(model, overall=TrackingCounts().scores()) for role, model in results.models.items()}
    write_results(path, replace(results, models=unjudged))
    found = page(report(path)).text
    assert "lowest MOTA" not in found
    assert "6 of 8 clips." in found


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


def test_damaged_pictures_are_left_out_and_counted(tmp_path):
    path = make(tmp_path)
    add_failures(path)
    whole = page(report(path)).tags.count("img")
    (tmp_path / "failures" / "student" / "strip.jpg").write_bytes(b"torn")
    frame = next((tmp_path / "student").glob("*.jpg"))
    frame.write_bytes(frame.read_bytes()[:200])
    found = page(report(path))
    assert found.tags.count("img") == whole - 2
    assert "Pictures beside the results that are damaged and left out: 2." in found.text


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


def test_a_clips_name_stands_above_its_tracks_and_all_clips_are_told_like_one(tmp_path):
    path = report(make(tmp_path / "two"))
    found = page(path).text
    by_clip = found[found.index("Clip by clip") :]
    assert "HOTA % switches misses false frames/s 2026_01_26/000000 teacher 90.00" in by_clip
    whole = by_clip[by_clip.index(" all ") :]
    assert re.match(r" all teacher 90.00 .* student 84.00 .* student vs teacher 99.00 ", whole)
    assert '<tbody class="total">' in path.read_text()  # bold are all of its rows
    alone = page(report(make(tmp_path / "alone", roles=("model",)))).text
    assert "2026_01_26/000000 90.00" in alone  # one line tells all: no row above it
