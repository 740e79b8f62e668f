"""Every error with its time, place and situation, on scenes small enough to work out by hand.

The picture is 200 x 100 at 10 frames a second; a look back is ten frames, an animal has entered after twenty.
"""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.clip import Annotation, Clip
from datamodules.images import read_image
from datamodules.masks import encode_mask
from pl_distill.evaluation.clip_files import ClipFiles, ReplayRecord
from pl_distill.evaluation.failure_reasons import CONTACT, REASONS
from pl_distill.evaluation.failure_strips import MARK, strip_frames, write_strips
from pl_distill.evaluation.failures import (
    KINDS,
    Total,
    find_failures,
    place_of,
    read_failures,
    total_failures,
    write_failures,
)
from pl_distill.evaluation.mot import count_clip
from pl_distill.evaluation.pairing import pair_with_annotations
from pl_distill.evaluation.results import ResultsError
from pl_distill.evaluation.scoring import explain_model
from pl_distill.evaluation.track_files import FrameBoxes

WIDTH, HEIGHT, FPS, FRAMES = 200, 100, 10.0, 40
ALONE, NEAR, FAR = (80, 40, 100, 60), (96, 40, 116, 60), (150, 40, 170, 60)


class Grey:
    def __iter__(self):
        for _ in range(FRAMES):
            yield np.full((HEIGHT, WIDTH, 3), 90, np.uint8)


def scene(animals, every=1, hidden=(), behaviours=None) -> Clip:
    """`animals`: name -> box, or frame -> box or None; `hidden`: (name, frame) pairs; `behaviours`: name -> label."""
    annotations = {}
    for frame in range(0, FRAMES, every):
        boxes = {name: where(frame) if callable(where) else where for name, where in animals.items()}
        boxes = {name: box for name, box in boxes.items() if box is not None}
        annotations[frame] = Annotation(
            tuple(boxes),
            np.array(list(boxes.values()), np.float32).reshape(-1, 4),
            tuple((behaviours or {}).get(name, "standing") for name in boxes),
            np.array([(name, frame) not in hidden for name in boxes], bool),
        )
    return Clip("2026_01_26/000000", "2026_01_26", FPS, WIDTH, HEIGHT, FRAMES, Grey(), annotations)


def tracked(boxes_of) -> dict[int, FrameBoxes]:
    """`boxes_of`: frame -> {track: box}."""
    tracks = {}
    for frame in range(FRAMES):
        found = boxes_of(frame)
        boxes = np.array(list(found.values()), np.float32).reshape(-1, 4)
        tracks[frame] = FrameBoxes(tuple(found), boxes, np.ones(len(found), np.float32))
    return tracks


def miss_of(clip, first=25, last=29, name="a", spare=None):
    """Lose `name` from `first` to `last`, with every other animal tracked; return the only error."""

    def boxes(frame):
        truth = clip.annotations[frame]
        shown = dict(enumerate(truth.boxes_xyxy.tolist()))
        if first <= frame <= last:
            shown.pop(truth.identities.index(name))
            if spare is not None:
                shown[77] = spare
        return shown

    (miss,) = [one for one in find_failures(clip, tracked(boxes), FRAMES) if one.kind == "miss"]
    return miss


def test_a_miss_run_has_its_time_place_and_cost():
    miss = miss_of(scene({"a": ALONE, "b": FAR}))
    assert (miss.animal, miss.first_frame, miss.last_frame, miss.boxes) == ("a", 25, 29, 5)
    assert (miss.start_s, miss.end_s) == (2.5, 2.9)
    assert (miss.box_xyxy, miss.place) == ([80, 40, 100, 60], "centre")
    assert miss.reason == "none of these"


@pytest.mark.parametrize(
    ("box", "place"),
    [((0, 0, 10, 10), "top left"), ((90, 80, 110, 100), "bottom"), ((180, 45, 200, 55), "right")],
)
def test_a_place_is_a_ninth_of_the_picture(box, place):
    assert place_of(box, WIDTH, HEIGHT) == place


def test_another_animals_box_that_covers_half_is_an_occlusion():
    # b covers 80..90 of 80..100: exactly half of a; both stand
    assert miss_of(scene({"a": ALONE, "b": (50, 40, 90, 60)})).reason == "occlusion"


def test_an_animal_that_was_hidden_in_the_last_second_is_an_occlusion():
    assert miss_of(scene({"a": ALONE}, hidden={("a", 16)})).reason == "occlusion"
    assert miss_of(scene({"a": ALONE}, hidden={("a", 14)})).reason == "none of these"  # more than a second ago


def test_boxes_that_overlap_are_a_crossing():
    assert miss_of(scene({"a": ALONE, "b": NEAR})).reason == "crossing"  # 4 of 20 columns: a fifth of the smaller
    assert miss_of(scene({"a": ALONE, "b": (99, 40, 119, 60)})).reason == "none of these"  # a twentieth


def test_a_neighbour_that_left_a_second_ago_no_longer_counts():
    near_until = lambda last: lambda frame: NEAR if frame <= last else FAR  # noqa: E731  # a scene in one line
    assert miss_of(scene({"a": ALONE, "b": near_until(15)})).reason == "crossing"
    assert miss_of(scene({"a": ALONE, "b": near_until(14)})).reason == "none of these"


def test_two_that_lie_against_each_other_are_a_pile():
    both = {"a": "sleep", "b": "lying"}
    assert miss_of(scene({"a": ALONE, "b": NEAR}, behaviours=both)).reason == "lying pile"
    assert miss_of(scene({"a": ALONE, "b": NEAR}, behaviours={"a": "sleep"})).reason == "crossing"
    assert miss_of(scene({"a": ALONE, "b": FAR}, behaviours=both)).reason == "none of these"


def test_without_labels_animals_that_stay_in_place_lie():
    unknown = {"a": None, "b": None}
    assert miss_of(scene({"a": ALONE, "b": NEAR}, behaviours=unknown)).reason == "lying pile"
    # b passes by, one pixel a frame: 10 in the second, more than 15 % of its diagonal of 28
    passing = lambda frame: (76 + frame, 40, 96 + frame, 60)  # noqa: E731
    assert miss_of(scene({"a": ALONE, "b": passing}, behaviours=unknown)).reason == "crossing"


def test_a_box_at_the_edge_is_the_border():
    assert miss_of(scene({"a": (180, 40, 200, 60)})).reason == "border"
    assert miss_of(scene({"a": (178, 40, 198, 60)})).reason == "none of these"  # 1 % of the width away


def test_an_animal_that_came_into_sight_less_than_two_seconds_ago_is_entering():
    comes = lambda frame: ALONE if frame >= 12 else None  # noqa: E731
    assert miss_of(scene({"a": comes, "b": NEAR}), 31, 35).reason == "entering"  # 31 - 12: 1.9 s
    assert miss_of(scene({"a": comes, "b": NEAR}), 32, 35).reason == "crossing"
    assert miss_of(scene({"a": ALONE}), 0, 5).reason == "entering"  # the clip has just begun


def test_an_animal_that_is_missed_from_its_first_sight_on_is_entering_however_long_it_is_missed():
    comes = lambda frame: ALONE if frame >= 12 else None  # noqa: E731
    assert miss_of(scene({"a": comes, "b": NEAR}), 12, 39).reason == "entering"  # 2.7 s


def test_a_track_that_covers_too_little_is_the_outline():
    loose = [80, 40, 86, 60]  # 6 of 20 columns: IoU 0.3
    assert miss_of(scene({"a": ALONE}), spare=loose).reason == "outline"
    assert miss_of(scene({"a": ALONE}), spare=[80, 40, 82, 60]).reason == "none of these"  # IoU 0.1


def test_a_switch_names_both_identities_and_costs_the_frames_under_the_new_one():
    clip = scene({"a": ALONE})

    def boxes(frame):
        if 20 <= frame < 23:
            return {}
        return {5: ALONE} if frame < 20 else {8: ALONE} if frame < 35 else {5: ALONE}

    switches = [one for one in find_failures(clip, tracked(boxes), FRAMES) if one.kind == "switch"]
    assert [(one.tracks, one.first_frame, one.last_frame, one.boxes) for one in switches] == [
        ([5, 8], 19, 23, 12),  # lost from 20 to 22, found at 23, again another at 35
        ([8, 5], 34, 35, 5),
    ]


def test_a_false_track_on_the_floor_is_background_and_on_an_animal_a_double():
    clip = scene({"a": ALONE})

    def boxes(frame):
        shown = {1: ALONE}
        if frame in (30, 31, 35):
            shown[2] = (10, 10, 30, 30)
        if frame == 33:
            shown[3] = (82, 42, 98, 58)
        return shown

    false = [one for one in find_failures(clip, tracked(boxes), FRAMES) if one.kind == "false track"]
    assert [(one.tracks, one.first_frame, one.last_frame, one.boxes, one.reason) for one in false] == [
        ([2], 30, 31, 2, "background"),
        ([3], 33, 33, 1, "double"),
        ([2], 35, 35, 1, "background"),  # it ended in between
    ]
    assert [one.animal for one in false] == [None, "a", None]


def test_a_speck_at_an_animals_edge_is_told_apart_as_the_rule_in_words_says():
    """Of a speck the share of its own box counts, not the overlap with the animal."""
    speck, outside = (98, 40, 103, 45), (99.9, 40, 104.9, 45)  # two fifths of it, and a fiftieth, lie on the animal

    def reason_of(shown):
        clip = scene({"a": ALONE})
        boxes = lambda frame: shown if frame == 30 else {1: ALONE}  # noqa: E731
        return next(one.reason for one in find_failures(clip, tracked(boxes), FRAMES) if one.kind == "false track")

    assert reason_of({1: ALONE, 2: speck}) == "double"
    assert reason_of({2: speck}) == "outline"
    assert reason_of({1: ALONE, 2: outside}) == "background"
    for reason in ("outline", "double", "background"):
        assert f"{100 * CONTACT:g} % of the smaller box" in REASONS[reason]


def test_only_labelled_frames_are_judged():
    clip = scene({"a": ALONE}, every=3)
    boxes = lambda frame: {} if 24 <= frame <= 30 else {1: ALONE}  # noqa: E731
    (miss,) = find_failures(clip, tracked(boxes), FRAMES)
    assert (miss.first_frame, miss.last_frame, miss.boxes) == (24, 30, 3)  # frames 24, 27 and 30


def test_frames_beyond_those_that_were_tracked_are_no_misses():
    assert find_failures(scene({"a": ALONE}), tracked(lambda frame: {1: ALONE} if frame < 10 else {}), 10) == []


animal_boxes = st.sampled_from([ALONE, NEAR, FAR, (0, 0, 20, 20), (84, 44, 104, 64)])


@settings(max_examples=25)
@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), animal_boxes), min_size=FRAMES, max_size=FRAMES),
    st.lists(st.dictionaries(st.integers(0, 3), animal_boxes), min_size=FRAMES, max_size=FRAMES),
)
def test_errors_add_up_to_the_scores(truth, found):
    clip = scene({name: (lambda frame, name=name: truth[frame].get(name)) for name in "abc"})
    tracks = tracked(lambda frame: found[frame])
    failures = find_failures(clip, tracks, FRAMES)
    scores = count_clip(pair_with_annotations(clip.annotations, tracks, FRAMES)).scores()
    cost = Counter()
    for failure in failures:
        cost[failure.kind] += failure.boxes
    assert sum(failure.kind == "switch" for failure in failures) == scores.id_switches
    assert cost["miss"] == scores.misses
    assert cost["false track"] == scores.false_positives
    assert {failure.kind for failure in failures} <= KINDS.keys()
    assert {failure.reason for failure in failures} <= REASONS.keys()
    assert [failure.boxes for failure in failures] == sorted((one.boxes for one in failures), reverse=True)


def test_totals_are_by_kind_and_situation_and_survive_the_file(tmp_path):
    clip = scene({"a": ALONE, "b": NEAR, "c": FAR})
    shown = lambda frame: {0: ALONE, 1: NEAR, 2: FAR} if frame < 30 else {1: NEAR}  # noqa: E731
    failures = find_failures(clip, tracked(shown), FRAMES)
    assert total_failures(failures) == {"miss": {"crossing": Total(1, 10), "none of these": Total(1, 10)}}
    path = tmp_path / "failures" / "model.json"
    write_failures(path, failures)
    assert read_failures(path) == failures
    assert json.loads(path.read_text())["totals"]["miss"]["crossing"] == {"events": 1, "boxes": 10}
    path.write_text(path.read_text().replace('"boxes": 10,\n', '"boxes": "ten",\n'))
    with pytest.raises(ResultsError, match=r"failures\[0\].boxes"):
        read_failures(path)
    with pytest.raises(ResultsError, match="pl-distill evaluate"):
        read_failures(tmp_path / "absent.json")


def test_a_strip_shows_the_place_before_during_and_after(tmp_path):
    clip = scene({"a": ALONE, "b": FAR})
    tracks = tracked(lambda frame: {1: FAR} if 20 <= frame < 30 else {0: ALONE, 1: FAR})
    whole = np.zeros((HEIGHT, WIDTH), bool)
    whole[40:60, 150:170] = True
    masks = {frame: {1: encode_mask(whole)} for frame in range(FRAMES)}
    failures = find_failures(clip, tracks, FRAMES)
    assert strip_frames(failures[0], FPS, FRAMES) == [15, 20, 24, 29, 34]
    assert strip_frames(failures[0], FPS, 30) == [15, 20, 24, 29]  # there is nothing after
    (done,) = write_strips(clip, failures, tracks, masks, FRAMES, tmp_path, tmp_path / "failures" / "model")
    assert done.strip == "failures/model/2026_01_26-000000-000-miss-f000020.jpg"
    picture = read_image(tmp_path / done.strip)
    assert picture.shape == (200, 5 * 204 - 4, 3)
    red = (np.abs(picture.astype(int) - MARK).max(axis=2) < 60).any(axis=0)
    assert all(red[number * 204 : number * 204 + 200].any() for number in range(5))  # marked in each


def test_strips_of_an_earlier_evaluation_are_removed(tmp_path):
    clip = scene({"a": ALONE})
    files = ClipFiles(tmp_path, "model", clip.name)
    for path in (files.tracks, files.masks, files.strips / "old.jpg", tmp_path / "failures/teacher/other.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # no tracks: one animal is missed
    record = ReplayRecord({}, 1.0, 1, None, [], [], [], [0] * FRAMES, [], [], "", "")
    path = explain_model("model", [clip], {clip.name: record}, tmp_path, strips=True)
    named = [failure.strip for failure in read_failures(tmp_path / path)]
    assert len(named) == 1
    assert [one.relative_to(tmp_path).as_posix() for one in files.strips.iterdir()] == named
    explain_model("model", [clip], {clip.name: record}, tmp_path, strips=False)
    assert list(files.strips.iterdir()) == []
    assert (tmp_path / "failures/teacher/other.jpg").exists()


def test_only_the_most_costly_get_strips(tmp_path, monkeypatch):
    monkeypatch.setattr("pl_distill.evaluation.failure_strips.MAX_STRIPS", 1)
    clip = scene({"a": ALONE})
    tracks = tracked(lambda frame: {} if frame in (25, 30, 31) else {0: ALONE})
    done = write_strips(clip, find_failures(clip, tracks, FRAMES), tracks, {}, FRAMES, tmp_path, tmp_path)
    assert [one.strip is not None for one in done] == [True, False]
    assert (done[0].first_frame, done[0].boxes) == (30, 2)
