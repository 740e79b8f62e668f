import json

import numpy as np
import pytest

from datamodules.animal_features import AnimalFeatures, read_features, read_manifest, write_features, write_manifest
from datamodules.behaviour import BehaviourDataModule, read_manifests
from datamodules.behaviour_windows import Window, check_classes, class_indices, step_of, window_rows
from datamodules.edinburgh_output import BEHAVIOURS
from datamodules.errors import CacheError, DataError
from datamodules.lies import lies_of

MAPPING = dict.fromkeys(BEHAVIOURS) | {"walk": "moving", "run": "moving", "standing": "still"}
DAYS = ("2026_01_01", "2026_01_02", "2026_01_21", "2026_01_26")


def clip_of(name: str, day: str, frames: int = 8, fps: float = 6.0, step: int = 1) -> AnimalFeatures:
    """Two animals; the first walks, the second stands, and their features say which row of which animal they are."""
    frame = np.tile(np.arange(0, frames * step, step, dtype=np.int32), 2)
    animal = np.repeat(np.array((0, 1), np.int32), frames)
    boxes = np.stack([10 + frame, 10 + 30 * animal, 30 + frame, 20 + 30 * animal], 1).astype(np.float32)
    behaviour = np.where(animal == 0, BEHAVIOURS.index("walk"), BEHAVIOURS.index("standing")).astype(np.int16)
    features = np.stack([animal, frame], 1).astype(np.float16)
    lies = lies_of(boxes).astype(np.float32)
    return AnimalFeatures(name, day, fps, 200, 100, ("a", "b"), frame, animal, boxes, lies, behaviour, features)


@pytest.fixture
def folder(tmp_path):
    entries = {day: write_features(tmp_path, clip_of(day, day)) for day in DAYS}
    embedder = {"source": "e", "identity": "abc", "dimension": 1, "features": 2}
    write_manifest(tmp_path, {"embedder": embedder, "boxes": "truth"}, entries)
    return tmp_path


def test_features_come_back_as_they_were_written(tmp_path):
    written = clip_of("2026_01_01/000000", "2026_01_01")
    read = read_features(tmp_path, written.clip, write_features(tmp_path, written))
    for name in AnimalFeatures.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))


def test_a_changed_file_is_refused_by_name(folder):
    (folder / "2026_01_01.safetensors").write_bytes(b"something else")
    manifest = read_manifest(folder)
    with pytest.raises(CacheError, match=r"2026_01_01\.safetensors: is not the file"):
        read_features(folder, "2026_01_01", manifest["clips"]["2026_01_01"])


@pytest.mark.parametrize(("text", "found"), [(None, "is not there"), ("{", "is not JSON"), ("{}", "another schema")])
def test_a_manifest_that_is_none_is_refused(tmp_path, text, found):
    if text is not None:
        (tmp_path / "features.json").write_text(text)
    with pytest.raises(CacheError, match=found):
        read_manifest(tmp_path)


def test_a_window_has_the_rows_of_its_animal_and_gaps_where_it_was_not_seen():
    frame, animal = np.array((0, 3, 9, 0, 3), np.int32), np.array((0, 0, 0, 1, 1), np.int32)
    assert step_of(frame, animal) == 3
    rows = window_rows(frame, animal, Window(1, 2), 3)
    expected = [(-1, 0, 1, -1), (0, 1, -1, 2), (-1, 2, -1, -1), (-1, 3, 4, -1), (3, 4, -1, -1)]
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("frames_per_step", [2.997, 3.03])
def test_labels_that_slip_by_a_frame_leave_no_hole_in_a_window(frames_per_step):
    """Every tenth of a second at 29.97 frames a second; the rest of a window is told by its order."""
    frame = np.array([round(number * frames_per_step) for number in range(600)], np.int32)
    rows = window_rows(frame, np.zeros(600, np.int32), Window(6, 6), step_of(frame, np.zeros(600, np.int32)))[6:-6]
    np.testing.assert_array_equal(rows, np.arange(6, 594)[:, None] + np.arange(-6, 7))


def test_every_raw_label_has_a_class_or_is_dropped_on_purpose():
    assert check_classes("data.classes", MAPPING) == ("moving", "still")
    with pytest.raises(DataError, match="does not say what becomes of 'fight'"):
        check_classes("data.classes", {label: None for label in BEHAVIOURS if label != "fight"})
    with pytest.raises(DataError, match="unknown label 'sleeping'"):
        check_classes("data.classes", {**MAPPING, "sleeping": "sleep"})


def test_labels_become_classes_and_unknown_ones_none():
    raw = np.array([BEHAVIOURS.index(name) for name in ("run", "standing", "fight")] + [-1], np.int16)
    np.testing.assert_array_equal(class_indices(raw, MAPPING, ("moving", "still")), (0, 1, -1, -1))


def test_whole_days_are_held_apart(folder):
    data = BehaviourDataModule(str(folder), MAPPING, window=Window(1, 1))
    data.setup("fit")
    assert [len(data.windows(part)) for part in ("train", "val", "test")] == [32, 16, 16]
    assert data.class_names == ("moving", "still")
    batch = data.windows("train").collate([0, 7, 8])
    # The first animal's first frame has no past, its last no future, and the second animal is another.
    np.testing.assert_array_equal(batch.present, [(0, 1, 1), (1, 1, 0), (0, 1, 1)])
    np.testing.assert_array_equal(batch.features[1], [(0, 6), (0, 7), (0, 0)])
    np.testing.assert_array_equal(batch.classes, (0, 0, 1))


def test_random_frames_are_divided_over_all_days(folder):
    data = BehaviourDataModule(str(folder), MAPPING, division="random_frames")
    data.setup("fit")
    sizes = [len(data.windows(part)) for part in ("train", "val", "test")]
    assert sum(sizes) == 64
    assert sizes[0] > sizes[1] > 0


def test_a_part_without_days_is_refused_with_the_days_that_are_there(folder):
    manifest = json.loads((folder / "features.json").read_text())
    del manifest["clips"]["2026_01_21"]
    (folder / "features.json").write_text(json.dumps(manifest))
    with pytest.raises(CacheError, match="part 'val'; its days are 2026_01_01, 2026_01_02, 2026_01_26"):
        BehaviourDataModule(str(folder), MAPPING).setup("fit")


def test_folders_are_one_set_if_they_are_alike_and_have_no_clip_in_common(folder, tmp_path):
    def more(name, day, identity="abc", boxes="truth", clip="2026_01_03"):
        embedder = {"source": "e", "identity": identity, "dimension": 1, "features": 2}
        entries = {day: write_features(tmp_path / name, clip_of(day, clip, 9))}
        write_manifest(tmp_path / name, {"embedder": embedder, "boxes": boxes}, entries)
        return str(tmp_path / name)

    def trained(*folders):
        data = BehaviourDataModule([str(one) for one in folders], MAPPING, window=Window(1, 1))
        data.setup("fit")
        return len(data.windows("train"))

    other = more("other", "2026_01_01")  # another herd of a day that the first folder has, too
    assert trained(folder, other) == trained(folder) + 18
    with pytest.raises(CacheError, match=r"holds the clip 2026_01_01 that .*other holds, too"):
        trained(folder, other, other)
    with pytest.raises(CacheError, match="is of the embedder def, expected abc, as"):
        trained(folder, more("stranger", "2026_01_02", identity="def"))
    assert trained(folder, more("tracked", "2026_01_01", boxes="tracks")) == trained(folder) + 18  # a second view
    with pytest.raises(CacheError, match="names no folder"):
        trained()


def test_clips_without_animals_are_alike_and_are_no_clip_in_common(folder, tmp_path):
    found = [folder]
    for name in ("x", "y"):
        other = tmp_path / name
        other.mkdir()
        empty = clip_of(f"2026_01_05/{name}", "2026_01_05", frames=0)
        embedder = {"source": "e", "identity": "abc", "dimension": 1, "features": 2}
        write_manifest(other, {"embedder": embedder, "boxes": "truth"}, {name: write_features(other, empty)})
        found.append(other)
    assert len(read_manifests(found)) == 3


def test_clips_of_another_rate_are_refused_with_both_and_what_tells_nothing_of_its_rate_is_not(folder, tmp_path):
    def setup(*more):
        entries = {one.clip: write_features(tmp_path / "more", one) for one in more}
        embedder = {"source": "e", "identity": "abc", "dimension": 1, "features": 2}
        write_manifest(tmp_path / "more", {"embedder": embedder, "boxes": "tracks"}, entries)
        data = BehaviourDataModule([str(folder), str(tmp_path / "more")], MAPPING)
        data.setup("fit")
        return data

    assert setup(clip_of("close", "2026_01_01", 9, fps=5.97), clip_of("few", "2026_01_02", 2, step=3)).fps == 6
    expected = r"more, clip slow: has 2 observations a second, expected 6, as .*, clip 2026_01_01 has"
    with pytest.raises(CacheError, match=expected):
        setup(clip_of("slow", "2026_01_03", step=3))
    assert setup(clip_of("labels", "2026_01_03", fps=18.0, step=3)).fps == 6
