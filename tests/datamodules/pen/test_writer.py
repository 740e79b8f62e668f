import json
import shutil
import threading
from dataclasses import asdict, replace

import numpy as np
import pytest

from datamodules.edinburgh import read_edinburgh
from datamodules.errors import UserError
from datamodules.masks import decode_masks
from datamodules.pen import PenConfig, draw_pen, pen_frames
from datamodules.pen.writer import scene_sha256

FRAMES = 6
DAYS = ["2026_01_01", "2026_01_26"]


def draw(out, config, **changes):
    arguments = {"days": DAYS, "clips_per_day": 1, "frames_per_clip": FRAMES, "seed": 3} | changes
    return draw_pen(out, config, **arguments)


def shown(folder, hidden=False):
    return sorted(path.name for path in folder.iterdir() if hidden or not path.name.startswith("."))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("pen")
    config = replace(PenConfig(), width=160, height=90, crf=10, noise=0.0)
    return out, config, draw(out, config, clips_per_day=2)


def test_clips_lie_by_day_and_number(drawn):
    out, _, folders = drawn
    names = [str(folder.relative_to(out)) for folder in folders]
    assert names == [f"{day}/{number:06d}" for day in DAYS for number in (0, 1)]
    assert shown(out) == DAYS
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {
            "color.mp4", "background.png", "output.json", "masks.json", "scene.json"
        }  # fmt: skip


def test_the_reader_gives_back_what_was_drawn(drawn):
    out, config, _ = drawn
    clip = read_edinburgh(out)[1]
    scene = json.loads((out / clip.name / "scene.json").read_text())
    names = {number: animal["name"] for number, animal in scene["animals"].items()}
    assert (clip.name, clip.day, clip.fps, clip.num_frames) == (f"{DAYS[0]}/000001", DAYS[0], 6.0, FRAMES)
    frames = pen_frames(config, seed=3, frames=FRAMES, day=clip.day, clip=clip.name)
    for read, frame in zip(clip.frames(), frames, strict=True):
        assert np.abs(read.image.astype(int) - frame.image).mean() < 6  # what H.264 loses
        found = read.annotation
        assert found is not None
        assert found.masks is not None
        order = [[names[number] for number in found.identities].index(name) for name in frame.names]
        assert len(found) == len(frame.names)
        assert (found.boxes_xyxy[order] == frame.boxes_xyxy).all()
        assert (decode_masks(found.masks)[order] == frame.masks).all()
        assert [found.behaviours[i] for i in order] == list(frame.behaviours)
        assert (found.visible[order] == frame.visible).all()


def test_ids_hold_within_a_clip_only(drawn):
    _, _, folders = drawn
    scenes = [json.loads((folder / "scene.json").read_text())["animals"] for folder in folders]
    ids = [{animal["name"]: number for number, animal in scene.items()} for scene in scenes]
    assert ids[0].keys() == ids[1].keys()
    assert ids[0] != ids[1]
    assert all(isinstance(item["id"], str) for item in json.loads((folders[0] / "output.json").read_text())["objects"])


def test_the_scene_names_its_origin(drawn):
    _, config, folders = drawn
    scene = json.loads((folders[0] / "scene.json").read_text())
    assert scene["config"] == asdict(config)
    assert (scene["schema"], scene["seed"], scene["clip"], scene["frames"]) == (1, 3, f"{DAYS[0]}/000000", FRAMES)


def test_furniture_has_masks_beside_the_animals(drawn):
    _, config, folders = drawn
    furniture = json.loads((folders[0] / "masks.json").read_text())["furniture"]
    assert set(furniture) == {"feeder", "toy"}
    for masks in furniture.values():
        assert set(masks) == {str(step) for step in range(FRAMES)}
        assert decode_masks(list(masks.values())).shape == (FRAMES, config.height, config.width)
        assert decode_masks(list(masks.values())).any()


def test_every_third_frame_can_be_labelled_as_in_the_recordings(tmp_path, small):
    (folder,) = draw(tmp_path, replace(small, label_every=3), days=DAYS[:1], frames_per_clip=7)
    content = json.loads((folder / "output.json").read_text())
    assert content["stepSize"] == content["config"]["stepSize"] == 0.5
    assert content["fullVideoFilePath"] == f"{DAYS[0]}/000000/"
    assert sorted(read_edinburgh(tmp_path)[0].annotations) == [0, 3, 6]


def test_finished_clips_are_kept_and_counted(tmp_path, small):
    counts = []
    first = draw(tmp_path, small, progress=counts.append)
    assert counts == [1] * 2 * FRAMES
    before = [(folder / "color.mp4").stat().st_mtime_ns for folder in first]
    counts.clear()
    assert draw(tmp_path, small, days=[*DAYS, "2026_01_27"], progress=counts.append)[:2] == first
    assert [(folder / "color.mp4").stat().st_mtime_ns for folder in first] == before
    assert counts == [FRAMES, FRAMES] + [1] * FRAMES


@pytest.mark.parametrize("change", [{"seed": 4}, {"frames_per_clip": 5}, {"config": {"coat": "black"}}])
def test_other_clips_of_ours_are_replaced(tmp_path, small, change):
    change = dict(change)
    other = replace(small, **change.pop("config", {}))
    before = [(folder / "color.mp4").read_bytes() for folder in draw(tmp_path, small, days=DAYS[:1])]
    after = [(folder / "color.mp4").read_bytes() for folder in draw(tmp_path, other, days=DAYS[:1], **change)]
    assert before != after


def test_lame_animals_are_named_in_the_scene_and_sound_ones_keep_their_hash(tmp_path, small):
    def drawn(vigour):
        (folder,) = draw(tmp_path, small, days=DAYS[:1], frames_per_clip=2, vigour=vigour)
        return json.loads((folder / "scene.json").read_text())

    sound, lame = drawn(None), drawn({"pig-01": 0.0})
    assert "vigour" not in sound
    assert lame["vigour"] == {"pig-01": 0.0}
    assert lame["sha256"] != sound["sha256"]
    assert sound["sha256"] == scene_sha256(small, f"{DAYS[0]}/000000", 3, 2) == drawn({})["sha256"]


def test_the_same_arguments_give_the_same_files(tmp_path, small):
    (first,), (second,) = (draw(tmp_path / name, small, days=DAYS[:1]) for name in "ab")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_a_broken_drawing_leaves_no_clip(tmp_path, small):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path, small, progress=stop)
    assert shown(tmp_path, hidden=True) == [".locks"]


def test_two_drawings_of_one_clip_do_not_disturb_each_other(tmp_path, small):
    counts = []
    second = threading.Thread(target=draw, args=(tmp_path, small), kwargs={"days": DAYS[:1], "progress": counts.append})

    def begin(_):
        if second.ident is None:
            second.start()
            second.join(0.3)  # it waits

    (folder,) = draw(tmp_path, small, days=DAYS[:1], progress=begin)
    second.join()
    assert counts == [FRAMES]  # it found the clip of the first
    assert len(list(folder.iterdir())) == 5


def test_the_rest_of_a_killed_drawing_is_swept(tmp_path, small):
    rest = tmp_path / f".{DAYS[0]}-000000.partial-1"
    rest.mkdir()
    (rest / "color.mp4").write_bytes(b"half")
    draw(tmp_path, small, days=DAYS[:1])
    assert shown(tmp_path, hidden=True) == [".locks", *DAYS[:1]]


def test_a_kill_while_an_old_clip_is_deleted_does_not_block_the_next_drawing(tmp_path, small, monkeypatch):
    def killed(path, **_):
        (path / "scene.json").unlink(missing_ok=True)  # half deleted
        raise KeyboardInterrupt

    (folder,) = draw(tmp_path, small, days=DAYS[:1])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            draw(tmp_path, small, days=DAYS[:1], seed=4)
    assert draw(tmp_path, small, days=DAYS[:1], seed=5) == [folder]
    assert json.loads((folder / "scene.json").read_text())["seed"] == 5
    assert shown(tmp_path, hidden=True) == [".locks", *DAYS[:1]]


def test_a_recording_is_never_replaced(tmp_path, small):
    recording = tmp_path / DAYS[0] / "000000" / "color.mp4"
    recording.parent.mkdir(parents=True)
    recording.write_bytes(b"precious")
    with pytest.raises(UserError, match=r"exists without a scene\.json.*Choose another output folder"):
        draw(tmp_path, small)
    assert recording.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"days": ["today"]}, "today"),
        ({"clips_per_day": 0}, "clips_per_day: is 0"),
        ({"frames_per_clip": -1}, "frames_per_clip: is -1"),
    ],
)
def test_impossible_orders_are_refused_before_anything_is_written(tmp_path, small, change, message):
    with pytest.raises(UserError, match=message):
        draw(tmp_path / "out", small, **change)
    assert not (tmp_path / "out").exists()


def test_an_empty_pen_can_be_written(tmp_path, small):
    draw(tmp_path, replace(small, num_animals=0), days=DAYS[:1])
    (clip,) = read_edinburgh(tmp_path)
    assert clip.num_frames == FRAMES
