"""`pl-distill track` from the command line: what is written, what survives a kill, and how mistakes are answered."""

import json
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

import av
import cv2
import numpy as np
import pytest
import torch
import yaml

from datamodules.clip import Frame
from datamodules.errors import ClipError
from datamodules.images import encode_jpeg
from datamodules.locks import held
from datamodules.masks import decode_masks, encode_mask
from datamodules.video import VideoFrames, probe_video
from datamodules.video_writer import VideoWriter
from pl_distill.cli import main
from pl_distill.commands import track as command
from pl_distill.deploy.envelope import load_envelope
from pl_distill.evaluation import track_output
from pl_distill.evaluation import track_stream as streaming
from pl_distill.evaluation.track_files import read_tracks
from pl_distill.evaluation.track_output import TrackOutput
from pl_distill.models.sam3 import write_random_sam3
from pl_distill.models.tinyvit_fpn import TinyViTFPN
from tests.python_process import python_process

FRAMES = 5


def picture(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = rng.integers(40, 80, (height, width, 3)).astype(np.uint8)
    for left in (4, 30, 46):
        image[8 + 2 * number : 24 + 2 * number, left : left + 12] = (230, 150, 120)
    return image


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_random_sam3("tiny", tmp_path_factory.mktemp("sam3") / "teacher", seed=0))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "pen.mp4"
    with VideoWriter(path, fps=6, width=64, height=48) as writer:
        for number in range(FRAMES):
            writer.write(picture(number))
    return path


SHOW_ALL = "--policy.retirement.hidden_frames=0"  # with random weights nothing confirms a track


def track(source, model, out, *options) -> int:
    words = ["track", str(source), "--model", str(model), "--out", str(out), "--device=cpu", SHOW_ALL, *options]
    return main(words)


@pytest.fixture(scope="module")
def tracked(model, video, tmp_path_factory):
    out = tmp_path_factory.mktemp("tracked") / "out"
    assert track(video, model, out) == 0
    return out


def test_tracks_masks_and_video_tell_the_same(tracked):
    tracks = read_tracks(tracked / "tracks.txt")
    lines = [json.loads(line) for line in (tracked / "masks.jsonl").read_text().splitlines()]
    by_frame = {frame: list(rows) for frame, rows in groupby(lines, lambda row: row["image_id"] - 1)}
    assert set(by_frame) == set(tracks) == set(range(FRAMES))
    for frame, rows in by_frame.items():
        assert tuple(row["track_id"] for row in rows) == tracks[frame].ids
        assert [row["score"] for row in rows] == pytest.approx(tracks[frame].scores.tolist(), abs=1e-4)
        assert {row["time_s"] for row in rows} == {round(frame / 6, 4)}
        boxes = np.array([row["bbox"] for row in rows])
        assert np.allclose(boxes[:, :2] + boxes[:, 2:], tracks[frame].boxes_xyxy[:, 2:], atol=1e-3)
        masks = decode_masks([row["segmentation"] for row in rows])
        assert masks.shape == (len(rows), 48, 64)
        assert masks.sum(axis=0).max() == 1  # no pixel belongs to two animals
    assert probe_video(tracked / "annotated.mp4").num_frames == FRAMES


def test_a_camera_of_months_may_leave_the_text_to_its_pool(model, video, tmp_path):
    out = tmp_path / "out"
    words = ("--text=false", "--annotated=false", "--masks=false", "--max_frames=2")
    assert track(video, model, out, *words, "--behaviour=pen_behaviour") == 1, "a head would name them for nobody"
    assert not out.exists()
    assert track(video, model, out, *words, f"--pool={tmp_path / 'pool'}") == 0
    assert sorted(path.name for path in out.iterdir()) == [".lock", "events.log", "run.json"]
    assert track(video, model, out, *words) == 1, "also without tracks.txt it is an older run"


def test_the_record_says_what_ran(tracked, model, video):
    record = json.loads((tracked / "run.json").read_text())
    assert (record["state"], record["frames"], record["fps"]) == ("finished", FRAMES, 6)
    assert (record["source"], record["model"]["source"], record["prompt"]) == (str(video), model, "pig")
    assert record["tracks"] == len({row for boxes in read_tracks(tracked / "tracks.txt").values() for row in boxes.ids})
    assert record["policy"]["mode"] == "bounded"
    assert list(record["memory"]) == ["streaming"]
    assert list(record["memory"]["streaming"]) == ["allocated", "reserved"] if torch.cuda.is_available() else ["rss"]
    assert 0.1 < record["memory"]["streaming"].get("rss", 2**30) / 2**30 < 64


def test_where_the_policy_names_an_embedder_tracks_are_where_they_were(tracked, model, video, tmp_path):
    out = tmp_path / "out"
    assert track(video, model, out, "--policy.appearance.embedder=pen_embedder", "--annotated=false") == 0
    plain, known = read_tracks(tracked / "tracks.txt"), read_tracks(out / "tracks.txt")
    assert {frame: sorted(map(tuple, boxes.boxes_xyxy)) for frame, boxes in known.items()} == {
        frame: sorted(map(tuple, boxes.boxes_xyxy)) for frame, boxes in plain.items()
    }
    record = json.loads((out / "run.json").read_text())
    assert record["policy"]["appearance"]["embedder"] == "pen_embedder"
    assert record["tracks"] == len({row for boxes in known.values() for row in boxes.ids})


def test_an_embedder_that_is_not_there_is_named(model, video, tmp_path, capsys):
    pool = tmp_path / "pool"
    assert track(video, model, tmp_path / "out", "--policy.appearance.embedder=nowhere", f"--pool={pool}") == 1
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not pool.exists()


def test_a_device_that_is_too_small_fails_after_everything_is_written(model, video, tmp_path, capsys):
    profile = load_envelope("orin-nx-16gb")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(asdict(profile) | {"name": "Toy", "memory_gib": 4.61}))
    options = [f"--envelope={tmp_path / 'toy.yaml'}", "--max_frames=2", "--annotated=false"]
    assert track(video, model, tmp_path / "warned", *options) == 0
    assert "device    Toy: needs" in capsys.readouterr().out
    assert track(video, model, tmp_path / "failed", *options, "--limit=fail") == 1
    assert "Toy: would have to hold" in capsys.readouterr().err
    assert (tmp_path / "failed" / "tracks.txt").read_bytes() == (tmp_path / "warned" / "tracks.txt").read_bytes() != b""


def test_pictures_give_the_same_tracks_as_their_video(tracked, model, video, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(VideoFrames(video)):
        cv2.imwrite(str(folder / f"{number + 8}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert track(folder, model, tmp_path / "out", "--max_frames=3", "--annotated=false", "--masks=false") == 0
    said = capsys.readouterr()
    assert "finished after 3 frames" in said.out
    assert "3/3" in said.err
    whole = (tracked / "tracks.txt").read_text()
    part = (tmp_path / "out" / "tracks.txt").read_text()
    assert len(part) > 0
    assert whole.startswith(part)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "tracks.txt", "events.log", "run.json"}


def test_a_student_tracks_inside_its_teacher(model, video, tmp_path, capsys):
    student = tmp_path / "student"
    sizes = {"embed_dims": [16] * 4, "depths": [1] * 4, "num_heads": [1] * 4, "window_sizes": [2] * 4}
    network = TinyViTFPN(
        out_channels=32, grid=8, body="tiny_vit_5m_224", body_size=64, fpn_channels=16, norm_groups=4, **sizes
    )
    network.save_pretrained(student, str(tmp_path / "moved"))
    assert track(video, student, tmp_path / "out", "--max_frames=2") == 1
    assert "Say with --teacher where it is now" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert track(video, student, tmp_path / "out", "--max_frames=2", f"--teacher={model}") == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["model"]["kind"], record["model"]["teacher"]) == ("TinyViTFPN", model)


@dataclass
class Camera:
    """A camera whose events are given: an exception, a signal, or the width of a picture, 0 for a black one."""

    events: list
    fps: float | None = None
    num_frames: int | None = None
    name: str = "rtsp://host/pen"
    paths: tuple = ()
    ends: bool = False

    def frames(self):
        for index, event in enumerate(self.events):
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, signal.Signals):
                signal.raise_signal(event)
            image = picture(index, event, event * 3 // 4) if event else np.zeros((48, 64, 3), np.uint8)
            yield Frame(index, index / 6 + (60 if index > 3 else 0), image, None)


@pytest.fixture
def camera(monkeypatch):
    def install(events, **about):
        monkeypatch.setattr(command, "open_source", lambda given, **_: Camera(events, **about))

    return install


def test_a_camera_that_blacks_out_pauses_and_changes_its_size_is_followed_on(camera, model, tmp_path, capsys):
    camera([64, 64, 0, 64, 96, 96])
    assert track("rtsp://host/pen", model, tmp_path / "out") == 0
    events, said = (tmp_path / "out" / "events.log").read_text(), capsys.readouterr().err
    for text in ("picture is blank", "picture is back after 1 blank", "no frames for 60", "now 96 x 72, not 64 x 48"):
        assert text in events
        assert text in said
    tracks = read_tracks(tmp_path / "out" / "tracks.txt")
    assert set(tracks) == {0, 1, 3, 4, 5}
    sizes = [json.loads(line) for line in (tmp_path / "out" / "masks.jsonl").read_text().splitlines()]
    assert {row["image_id"]: row["segmentation"]["size"] for row in sizes}[6] == [72, 96]
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as container:
        shown = list(container.decode(video=0))
    assert {(frame.width, frame.height) for frame in shown} == {(640, 480)}
    assert [float(frame.time) for frame in shown] == pytest.approx(
        [0, 1 / 6, 2 / 6, 3 / 6, 60 + 4 / 6, 60 + 5 / 6], abs=1e-3
    )


def test_a_cameras_record_is_dated_from_its_first_picture(camera, model, tmp_path, monkeypatch):
    """It may be reached for for minutes, and frames count their seconds from the first."""
    came, dated = [], []
    begun, open_pool = command.begun, command.open_pool

    def late(source):
        frames = begun(source)
        came.append(datetime.now(UTC))
        return frames

    def spied(*args):
        dated.append(args[4])
        return open_pool(*args)

    monkeypatch.setattr(command, "begun", late)
    monkeypatch.setattr(command, "open_pool", spied)
    camera([64, 64])
    assert track("rtsp://host/pen", model, tmp_path / "out", f"--pool={tmp_path / 'pool'}") == 0
    assert timedelta(0) <= dated[0] - came[0] < timedelta(seconds=1)


@pytest.fixture
def asked_to_end():
    """Signals that reach nobody but the test, which would otherwise end with them."""
    missed = []
    before = signal.signal(signal.SIGTERM, lambda number, _: missed.append(number))
    yield missed
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("asked", [KeyboardInterrupt(), signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize(("ends", "code"), [(False, 0), (True, 130)], ids=["camera", "recording"])
def test_ctrl_c_and_sigterm_end_a_camera_and_stop_a_recording_with_whole_files(
    camera, model, tmp_path, capsys, asked_to_end, asked, ends, code
):
    camera([64, 64, asked], ends=ends)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        found = track("pen", model, tmp_path / "out", "--behaviour=pen_behaviour")
    except SystemExit as stop:
        found = stop.code
    assert found == code
    assert not asked_to_end
    assert signal.getsignal(signal.SIGTERM) is handler
    assert "stopped after 2 frames" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "stopped"
    assert probe_video(tmp_path / "out" / "annotated.mp4").num_frames == 2
    animals = [json.loads(line) for line in (tmp_path / "out" / "animals.jsonl").read_text().splitlines()]
    assert {row["image_id"] for row in animals} == {1, 2}, "what waited for its behaviour is written, too"


def test_a_stop_in_the_middle_of_a_frames_masks_waits_until_all_files_have_the_frame(
    model, video, tmp_path, monkeypatch, capsys
):
    calls = []

    def stopped(mask):
        calls.append(mask)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return encode_mask(mask)

    monkeypatch.setattr(track_output, "encode_mask", stopped)
    with pytest.raises(SystemExit):
        track(video, model, tmp_path)
    assert "stopped after 1 frames" in capsys.readouterr().out
    masks = [json.loads(line)["image_id"] - 1 for line in (tmp_path / "masks.jsonl").read_text().splitlines()]
    tracks = read_tracks(tmp_path / "tracks.txt")
    assert [frame for frame, rows in tracks.items() for _ in rows.ids] == masks
    assert set(masks) == {0}
    assert len(masks) > 2, "the stop came before the last"
    assert probe_video(tmp_path / "annotated.mp4").num_frames == 1


@pytest.mark.parametrize(
    "event", [ClipError("rtsp://host/pen", "cannot be opened", "a camera", "Check it."), KeyboardInterrupt()]
)
def test_a_camera_that_gives_no_first_frame_blocks_no_retry_and_replaces_nothing(
    camera, model, tmp_path, capsys, event
):
    out = tmp_path / "out"
    camera([event])
    assert track("rtsp://host/pen", model, out) != 0
    assert not out.exists()
    out.mkdir()
    for name in ("tracks.txt", "masks.jsonl", "annotated.mp4", "animals.jsonl", "events.log", "run.json"):
        (out / name).write_text("yesterday\n")
    assert track("rtsp://host/pen", model, out, "--overwrite=true", "--behaviour=pen_behaviour") != 0
    assert {path.read_text() for path in out.iterdir() if path.name != ".lock"} == {"yesterday\n"}
    camera([])
    assert track("rtsp://host/pen", model, out, "--overwrite=true") == 1
    assert "rtsp://host/pen: gives no picture" in capsys.readouterr().err
    assert {path.read_text() for path in out.iterdir() if path.name != ".lock"} == {"yesterday\n"}


def test_what_was_tracked_before_an_error_stays(model, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.jpg"), picture(number))
    last = folder / "2.jpg"
    last.write_bytes(last.read_bytes()[:-50])
    assert track(folder, model, tmp_path / "out") == 1
    assert f"error: {last}: cannot be decoded" in capsys.readouterr().err
    assert set(read_tracks(tmp_path / "out" / "tracks.txt")) == {0, 1}
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "stopped"


def test_an_error_while_the_files_are_closed_is_in_the_record(monkeypatch, model, video, tmp_path, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrackOutput, "__exit__", full)
    assert track(video, model, tmp_path, "--max_frames=2") == 1
    assert "No space left" in capsys.readouterr().err
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["state"], record["frames"]) == ("stopped", 2)


def test_a_kill_loses_at_most_the_last_picture(model, tmp_path):
    path, out = tmp_path / "long.mp4", tmp_path / "out"
    with VideoWriter(path, fps=6, width=64, height=48) as writer:
        for number in range(500):
            writer.write(picture(number % 10))
    words = ["track", str(path), "--model", model, "--out", str(out), "--device=cpu"]
    with python_process("-m", "pl_distill.cli", *words, stderr=subprocess.DEVNULL):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (out / "tracks.txt").is_file():
            time.sleep(0.02)
        while time.monotonic() < deadline and (out / "tracks.txt").read_text().count("\n") < 40:
            time.sleep(0.02)
    last = max(read_tracks(out / "tracks.txt"))
    assert last > 2
    lines = [json.loads(line) for line in (out / "masks.jsonl").read_text().splitlines()]
    assert lines[-1]["image_id"] - 1 >= last - 1
    assert (
        len(list(VideoFrames(out / "annotated.mp4"))) >= last - 1
    )  # of last + 1 frames; one drawn, one in the encoder
    assert json.loads((out / "run.json").read_text())["state"] == "running"


@pytest.mark.parametrize(("every_s", "seen"), [(0.0, [1, 2, 3]), (10.0, [0, 0, 0])])
def test_the_record_of_a_run_that_goes_on_says_how_far_it_is(monkeypatch, model, tmp_path, every_s, seen):
    found = []

    class Watched(Camera):
        def frames(self):
            for frame in super().frames():
                yield frame
                found.append(json.loads((tmp_path / "run.json").read_text()))

    monkeypatch.setattr(streaming, "RECORD_S", every_s)
    monkeypatch.setattr(command, "open_source", lambda given, **_: Watched([64, 64, 64]))
    assert track("pen", model, tmp_path, "--annotated=false", "--masks=false") == 0
    assert [record["frames"] for record in found] == seen
    assert {record["state"] for record in found} == {"running"}
    assert found[-1].keys() == json.loads((tmp_path / "run.json").read_text()).keys()


class TestRefused:
    def refused(self, capsys, words, *texts):
        assert main(words) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        for text in texts:
            assert text in error

    def words(self, source, model, out, *options):
        return ["track", str(source), "--model", str(model), "--out", str(out), *options]

    def test_missing_truncated_and_forbidden_sources(self, model, video, tmp_path, capsys):
        out, cut = tmp_path / "out", tmp_path / "cut.mp4"
        cut.write_bytes(video.read_bytes()[:-100])
        self.refused(capsys, self.words(tmp_path / "no.mp4", model, out), "no.mp4: is not there")
        self.refused(capsys, self.words(cut, model, out), "cut.mp4", "expected a whole video")
        self.refused(capsys, self.words("pipe:0", model, out), "is an address that is not opened", "rtsp://")
        self.refused(capsys, self.words(tmp_path / "*.avi", model, out), "matches no file")
        assert not out.exists()

    def test_options_that_contradict(self, model, video, tmp_path, capsys):
        out = tmp_path / "out"
        self.refused(capsys, self.words(video, model, out, "--max_frames=0"), "--max_frames: is 0", "above 0")
        self.refused(capsys, self.words(video, model, out, "--picture_fps=-1"), "--picture_fps: is -1.0")
        self.refused(capsys, self.words(video, model, out, f"--teacher={model}"), "is no student", "Leave it out")
        self.refused(capsys, self.words(video, model, out, "--prompt=dragon"), "dragon")
        self.refused(capsys, self.words(video, model, out, "--file_pause_s=-1"), "--file_pause_s: is -1")
        self.refused(capsys, self.words(video, tmp_path / "nothing", out), "nothing")
        self.refused(capsys, self.words(video, model, out, "--device=warp"), "device: is 'warp'")
        self.refused(capsys, ["track", "--model", model, "--out", str(out)], "video")
        assert not out.exists()

    @pytest.mark.parametrize(
        "option",
        ["camera=barn", "began=2026-01-26T08:00:00", "place.reach_m=2", "identify.evidence=5", "sampling.per_hour=14"],
    )
    def test_options_of_a_pool_without_one(self, model, video, tmp_path, capsys, option):
        name = option.partition("=")[0].partition(".")[0]
        for beside in ([], ["--behaviour=pen_behaviour"]):
            words = self.words(video, model, tmp_path / "out", f"--{option}", *beside)
            self.refused(capsys, words, f"--{name}: is given without --pool", "Add --pool FOLDER")
        assert not (tmp_path / "out").exists()

    def test_an_embedder_that_nothing_uses(self, model, video, tmp_path, capsys):
        words = self.words(video, model, tmp_path / "out", "--embedder=facebook/dinov3", "--max_frames=1")
        self.refused(capsys, words, "--embedder: is given without --pool", "--policy.appearance.embedder")
        assert not (tmp_path / "out").exists()

    def test_pictures_further_apart_than_a_track_lives(self, model, tmp_path, capsys):
        pictures, out = tmp_path / "pictures", tmp_path / "out"
        pictures.mkdir()
        (pictures / "1.jpg").write_bytes(encode_jpeg(np.zeros((48, 64, 3), np.uint8), 80))
        words = self.words(pictures, model, out, "--picture_fps=0.008")
        self.refused(capsys, words, "puts 125.0 s between pictures", "at most --policy.retirement.pause_s (60 s)")
        assert not out.exists()
        assert main([*words, "--policy.retirement.pause_s=125"]) == 0

    def test_an_older_run_is_not_overwritten_unasked(self, model, video, tmp_path, capsys):
        (tmp_path / "tracks.txt").write_text("yesterday\n")
        self.refused(capsys, self.words(video, model, tmp_path), "holds tracks.txt of an older run", "--overwrite")
        assert (tmp_path / "tracks.txt").read_text() == "yesterday\n"
        (tmp_path / "animals.jsonl").write_text("yesterday\n")
        assert main(self.words(video, model, tmp_path, "--overwrite=true", "--max_frames=1")) == 0
        assert set(read_tracks(tmp_path / "tracks.txt")) == {0}
        assert not (tmp_path / "animals.jsonl").exists(), "what nothing describes now has no old description"

    @pytest.mark.parametrize("name", ["annotated.mp4", "events.log"])
    def test_a_video_that_the_run_would_write_over(self, model, video, tmp_path, capsys, name):
        day = tmp_path / "day"
        day.mkdir()
        kept = day / name
        kept.write_bytes(video.read_bytes())
        link = tmp_path / "link.mp4"
        link.symlink_to(kept)
        pattern = f"{day}/*{kept.suffix}"
        for source in (kept, link, pattern):
            words = self.words(source, model, day, "--overwrite=true", "--max_frames=1")
            self.refused(capsys, words, f"--out {day}: would write over", "a folder apart from what is tracked")
        assert kept.read_bytes() == video.read_bytes()
        assert list(day.iterdir()) == [kept]

    def test_a_folder_that_another_run_writes_or_has_just_written(self, model, video, tmp_path, capsys, monkeypatch):
        def open_beside(*arguments):
            (tmp_path / "tracks.txt").write_text("of the other\n")
            return opened(*arguments)

        opened = command.open_model
        with held(tmp_path / ".lock", wait=False):
            self.refused(capsys, self.words(video, model, tmp_path), "is written by another run")
            self.refused(capsys, self.words(video, model, tmp_path, "--overwrite=true"), "is written by another run")
        monkeypatch.setattr(command, "open_model", open_beside)
        self.refused(capsys, self.words(video, model, tmp_path), "holds tracks.txt of an older run")
        assert (tmp_path / "tracks.txt").read_text() == "of the other\n"


def test_help_shows_an_example_and_where_the_video_stands(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["track", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "Example: pl-distill track pen.mp4 --model" in text
    assert "May stand first without --video" in " ".join(text.split())
