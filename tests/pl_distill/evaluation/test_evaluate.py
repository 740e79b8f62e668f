"""The whole evaluation on a SAM 3 with random weights: what is written, what is reused, what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules.errors import ShardError
from datamodules.locks import held
from datamodules.shards import read_shard_clips
from datamodules.video import probe_video
from pl_distill.assets import shipped_models
from pl_distill.errors import CheckpointError, ConfigError
from pl_distill.evaluation import evaluate as evaluating
from pl_distill.evaluation import replay_resumption
from pl_distill.evaluation.evaluate import evaluate
from pl_distill.evaluation.failures import read_failures
from pl_distill.evaluation.headline import format_baselines
from pl_distill.evaluation.mot import TrackingCounts, count_clip
from pl_distill.evaluation.pairing import pair_with_annotations
from pl_distill.evaluation.results import read_results
from pl_distill.evaluation.track_files import read_tracks
from pl_distill.models.dinov3 import FAMILY
from pl_distill.models.prompts import choose_prompt, load_prompts
from pl_distill.models.sam3 import load_preprocessing, load_sam3
from pl_distill.streaming import Appearance, PruningPolicy, StreamingTracker

CLIPS = ["2026_01_26/000000", "2026_01_27/000000"]


@pytest.fixture(scope="module")
def both(tmp_path_factory, shards, student):
    """A student beside the teacher that it remembers."""
    out = tmp_path_factory.mktemp("both")
    return out, evaluate(student, shards, out, seed=1_000_000)


def test_a_student_is_evaluated_beside_the_teacher_it_remembers(both, teacher, student):
    out, results = both
    assert list(results.models) == ["teacher", "student"]
    assert results.models["student"].model.teacher == str(teacher)
    assert results.student_vs_teacher is not None
    assert list(results.student_vs_teacher.clips) == CLIPS
    assert 0 < results.student_vs_teacher.mask_overlap < 100
    assert results.models["student"].mask_overlap is None  # these shards hold no masks
    assert read_results(out / "results.json") == results


def test_results_have_the_keys_that_everyone_reads(both):
    content = json.loads((both[0] / "results.json").read_text())
    assert content["schema"] == 1
    assert content["seed"] == 1_000_000
    assert {"frames_per_second", "peak_rss_bytes", "seconds", "versions", "split_sha256"} <= content.keys()
    for role in ("teacher", "student", "student_vs_teacher"):
        for scores in (content[role]["overall"], *content[role]["clips"].values()):
            wanted = {"mota", "idf1", "hota", "id_switches", "misses", "false_positives", "fragmentations"}
            assert wanted <= scores.keys()
    for role in ("teacher", "student"):
        (found,) = content[role]["memory"].values()
        assert list(content[role]["memory"]) == ["streaming"]
        if content["settings"]["device"] == "cpu":
            assert found == {"rss": content[role]["peak_rss_bytes"]}


def test_every_file_that_results_name_is_there(both):
    out, results = both
    for model in results.models.values():
        for clip in model.clips.values():
            assert (out / clip.replay.tracks).is_file()
            assert (out / clip.replay.masks).is_file()
            assert (out / clip.replay.record).is_file()
            assert all((out / picture).is_file() for picture in clip.replay.pictures.values())
            assert probe_video(out / clip.replay.video).num_frames == clip.replay.frames == 6


def test_tensorboard_shows_the_same_scores_and_every_frame(both):
    out, results = both
    assert len(list((out / "tensorboard").glob("*/events.out.tfevents.*"))) == 3
    board = EventAccumulator(str(out / "tensorboard" / "student")).Reload()
    (mota,) = board.Scalars("test/mota")
    assert mota.value == pytest.approx(results.models["student"].overall.mota, rel=1e-6)
    assert len(board.Scalars("test_by_clip/idf1")) == 2
    assert len(board.Scalars("perf/frame_ms")) == 12
    assert len(board.Images("pictures/2026_01_27/000000")) == 2  # the labelled frames
    mutual = EventAccumulator(str(out / "tensorboard" / "student_vs_teacher")).Reload()
    assert mutual.Scalars("test/mota")[0].value == pytest.approx(results.student_vs_teacher.overall.mota, rel=1e-6)


def test_tracks_are_those_of_the_tracker(both, shards, teacher):
    clip = read_shard_clips(shards, "test")[0]
    model = load_sam3(teacher)
    tracker = StreamingTracker(model, choose_prompt(load_prompts(teacher), "pig"), load_preprocessing(teacher))
    written = read_tracks(both[0] / both[1].models["teacher"].clips[clip.name].replay.tracks)
    found = 0
    for frame in clip.frames():
        tracks = tracker.update(frame.image, frame.timestamp_s)
        found += len(tracks.ids)
        if tracks.ids:
            assert written[frame.index].ids == tracks.ids
            np.testing.assert_allclose(written[frame.index].boxes_xyxy, tracks.boxes_xyxy, atol=1e-3)
    assert found > 0


def test_scores_are_those_of_the_tracks_on_disk(both, shards):
    out, results = both
    counts = TrackingCounts()
    for clip in read_shard_clips(shards, "test"):
        tracks = read_tracks(out / results.models["student"].clips[clip.name].replay.tracks)
        counts += count_clip(pair_with_annotations(clip.annotations, tracks, 6))
    assert counts.scores() == results.models["student"].overall
    assert counts.scored_frames == 6 + 2  # every frame of one clip, every third of the other
    assert counts.truth_boxes == 2 * 8 - 1  # one animal is hidden in one labelled frame


def test_sizes_do_not_depend_on_whether_a_student_carries_its_necks(both, shards, save_student, teacher, tmp_path):
    with_necks = both[1].models["student"].model
    bare = evaluate(save_student(str(teacher)), shards, tmp_path / "out", max_frames=1, video=False)
    assert bare.models["student"].model.trunk_parameters == with_necks.trunk_parameters
    assert bare.models["student"].model.neck_parameters == with_necks.neck_parameters
    assert with_necks.neck_parameters == both[1].models["teacher"].model.neck_parameters


@pytest.fixture(scope="module")
def alone(tmp_path_factory, shards, teacher):
    """A SAM 3 without a student, the first three frames of each clip."""
    out = tmp_path_factory.mktemp("alone")
    policy = PruningPolicy(mode="bounded")
    return out, evaluate(teacher, shards, out, max_frames=3, video=False, policy=policy)


def test_a_sam3_alone_is_the_model(alone):
    out, results = alone
    assert list(results.models) == ["model"]
    assert results.student_vs_teacher is None
    content = json.loads((out / "results.json").read_text())
    assert content["overall"]["scored_frames"] == 3 + 1
    assert content["settings"]["policy"]["mode"] == "bounded"
    assert content["clips"][CLIPS[0]]["replay"]["video"] is None
    assert not (out / "videos").exists()
    (of_model,) = results.models.values()
    whole = replace(of_model, seconds=results.seconds)  # with one model, the file has one number for both
    assert read_results(out / "results.json") == replace(results, models={"model": whole})


@pytest.fixture
def finished(alone, tmp_path):
    """A copy of a finished evaluation, which may be damaged, and how to run it again."""
    out = Path(shutil.copytree(alone[0], tmp_path / "finished"))
    options = {"max_frames": 3, "video": False, "policy": PruningPolicy(mode="bounded")}
    return out, lambda **changes: evaluate(*changes.pop("args"), out, **{**options, **changes})


@pytest.fixture
def replayed(monkeypatch):
    """The clips that are replayed from now on: (role, name)."""
    names: list[tuple[str, str]] = []
    record_clip = replay_resumption.record_clip

    def spy(clip, tracker, files, *rest, **options):
        names.append((files.role, clip.name))
        return record_clip(clip, tracker, files, *rest, **options)

    monkeypatch.setattr(replay_resumption, "record_clip", spy)
    return names


def test_a_second_run_replays_nothing_and_finds_the_same(finished, replayed, shards, teacher, alone):
    _, run = finished
    again = run(args=(teacher, shards))
    assert replayed == []
    assert again.models == alone[1].models
    assert again.seconds >= alone[1].models["model"].seconds  # what earlier runs spent is not forgotten


def test_only_the_clip_that_is_not_whole_is_replayed(finished, replayed, shards, teacher, alone):
    out, run = finished
    (out / "tracks/model/2026_01_27-000000.txt").write_text("1,1,0,0,5,5,1,-1,-1,-1\n")
    again = run(args=(teacher, shards))
    assert replayed == [("model", CLIPS[1])]
    assert again.models["model"].overall == alone[1].models["model"].overall


@pytest.mark.parametrize(
    "change", [{"policy": PruningPolicy(max_objects=2)}, {"max_frames": 1}, {"video": True, "max_frames": 3}], ids=str
)
def test_another_question_is_asked_anew(finished, replayed, shards, teacher, change):
    finished[1](args=(teacher, shards), **change)
    assert len(replayed) == 2


def test_tracks_named_by_another_embedder_are_not_taken_for_those_of_this(shards, teacher, tmp_path, replayed):
    embedder = Path(shutil.copytree(shipped_models(*FAMILY)["pen_embedder"], tmp_path / "embedder"))
    policy = PruningPolicy(appearance=Appearance(embedder=str(embedder)))
    options = {"max_frames": 2, "video": False, "policy": policy}
    results = evaluate(teacher, shards, tmp_path / "out", **options)
    assert any("by '" in note and "tracker and embedder together" in note for note in results.notes)
    evaluate(teacher, shards, tmp_path / "out", **options)
    assert len(replayed) == 2
    cropping = json.loads((embedder / "cropping.json").read_text())
    (embedder / "cropping.json").write_text(json.dumps({**cropping, "margin": 0.4}))
    evaluate(teacher, shards, tmp_path / "out", **options)
    assert len(replayed) == 4


def test_tracks_of_other_code_are_not_taken_for_those_of_this(finished, replayed, shards, teacher, monkeypatch):
    deciding = []
    monkeypatch.setattr(evaluating, "code_sha256", lambda places: deciding.extend(places) or "another state")
    finished[1](args=(teacher, shards))
    assert len(replayed) == 2
    assert {f"pl_distill/evaluation/{name}.py" for name in ("replay_recording", "mask_files", "track_files")} <= set(
        deciding
    )


def test_the_teachers_tracks_of_another_evaluation_are_taken_for_the_next_student(
    save_student, shards, teacher, both, tmp_path, replayed, capsys
):
    """Two seeds of a student have one teacher, which is streamed once."""
    source, of_first = both
    second = save_student(str(teacher), "f" * 64)  # other bytes: another student
    results = evaluate(second, shards, tmp_path / "out", seed=1_000_000, replays=source)
    assert replayed == [("student", name) for name in CLIPS]
    assert f"teacher: 2 of 2 clips are taken from {source}" in capsys.readouterr().out
    assert results.models["teacher"].overall == of_first.models["teacher"].overall
    for clip in ("2026_01_26-000000", "2026_01_27-000000"):
        for file in (f"tracks/teacher/{clip}.masks.txt", f"videos/teacher/{clip}.mp4"):
            assert (tmp_path / "out" / file).read_bytes() == (source / file).read_bytes()
    replayed.clear()
    evaluate(second, shards, tmp_path / "out", seed=1_000_000)
    assert replayed == []  # what was copied is whole


def test_replays_of_another_policy_or_damaged_ones_are_not_taken(finished, shards, teacher, tmp_path, replayed, capsys):
    source, _ = finished
    options = {"max_frames": 3, "video": False, "replays": source}
    evaluate(teacher, shards, tmp_path / "other", policy=PruningPolicy(mode="exact"), **options)
    assert f"nothing of {source} is of the same model, policy" in capsys.readouterr().out
    assert len(replayed) == 2
    replayed.clear()
    (source / "tracks/model/2026_01_27-000000.txt").write_text("1,1,0,0,5,5,1,-1,-1,-1\n")
    evaluate(teacher, shards, tmp_path / "damaged", policy=PruningPolicy(mode="bounded"), **options)
    assert replayed == [("model", CLIPS[1])]


def test_while_one_job_scores_another_that_ends_does_not(finished, shards, teacher):
    out, run = finished
    (out / "results.json").unlink()
    with held(out / "scoring.lock", wait=False):
        assert run(args=(teacher, shards)) is None
    assert not (out / "results.json").exists()
    assert run(args=(teacher, shards)) is not None


def test_a_clip_that_fails_leaves_the_finished_ones(monkeypatch, shards, teacher, tmp_path, replayed):
    update = StreamingTracker.update
    calls = []

    def dies(self, *frame):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return update(self, *frame)

    monkeypatch.setattr(StreamingTracker, "update", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluate(teacher, shards, tmp_path, max_frames=2)
    assert {path.name for path in (tmp_path / "tracks/model").iterdir()} == {
        "2026_01_26-000000.txt",
        "2026_01_26-000000.masks.txt",
        "2026_01_26-000000.json",
    }
    assert not (tmp_path / "results.json").exists()
    replayed.clear()
    evaluate(teacher, shards, tmp_path, max_frames=2)
    assert replayed == [("model", CLIPS[1])]


def test_jobs_share_the_clips_and_the_last_one_scores_all_of_them(shards, student, tmp_path):
    whole = evaluate(student, shards, tmp_path / "whole", max_frames=2, video=False)
    assert evaluate(student, shards, tmp_path / "out", max_frames=2, video=False, task=1, tasks=2) is None
    assert not (tmp_path / "out" / "results.json").exists()
    shared = evaluate(student, shards, tmp_path / "out", max_frames=2, video=False, task=0, tasks=2)
    for role, model in whole.models.items():
        assert shared.models[role].overall == model.overall
        assert list(shared.models[role].clips) == CLIPS
    assert read_results(tmp_path / "out" / "results.json") == shared


def test_a_student_of_another_trunk_is_named_in_the_notes(save_student, shards, teacher, tmp_path):
    student = save_student(str(teacher), "f" * 64)
    notes = evaluate(student, shards, tmp_path / "out", max_frames=1, video=False).notes
    assert "learned from another trunk (ffffffffffff)" in notes[0]


def refused(error, *args, **options) -> str:
    with pytest.raises(error) as caught:
        evaluate(*args, **options)
    assert not Path(args[2]).exists(), "something was written"
    return str(caught.value)


def test_simpler_trackers_run_on_the_same_networks_and_clips(alone, shards, teacher, tmp_path):
    options = {"max_frames": 3, "video": False, "policy": PruningPolicy(mode="bounded")}
    results = evaluate(teacher, shards, tmp_path, baselines=("stock", "iou"), **options)
    assert results.models["model"].overall == alone[1].models["model"].overall
    assert list(results.baselines) == ["model-stock", "model-iou"]
    ours, stock, iou = (one.session_bytes for one in (results.models["model"], *results.baselines.values()))
    assert iou < ours < stock
    for baseline in results.baselines.values():
        assert list(baseline.clips) == CLIPS
        assert baseline.overall.truth_boxes == results.models["model"].overall.truth_boxes
        assert (tmp_path / baseline.failures).is_file()
    again = read_results(tmp_path / "results.json")
    assert again.baselines == results.baselines
    assert "detector + IoU" in format_baselines(again)


def test_every_error_is_kept_with_pictures_of_the_worst(both, shards):
    out, results = both
    for role, model in results.models.items():
        failures = read_failures(out / model.failures)
        assert sum(one.kind == "switch" for one in failures) == model.overall.id_switches
        assert sum(one.boxes for one in failures if one.kind == "miss") == model.overall.misses
        strips = [one.strip for one in failures if one.strip is not None]
        assert strips
        assert all((out / strip).is_file() and f"failures/{role}/" in strip for strip in strips)


def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(shards, teacher, student, tmp_path):
    out = tmp_path / "out"
    assert "'train' has no clips" in refused(ConfigError, student, shards, out, split="train")
    assert "test (12 frames)" in refused(ConfigError, student, shards, out, split="val")
    assert "stored words: feeder, pig, toy" in refused(ConfigError, student, shards, out, prompt="cow")
    assert "max_frames: is 0" in refused(ConfigError, student, shards, out, max_frames=0)
    assert "task: is 2, expected 0 to tasks - 1" in refused(ConfigError, student, shards, out, task=2, tasks=2)
    assert "baselines: names 'luck'" in refused(ConfigError, student, shards, out, baselines=("luck",))
    assert f"replays: {tmp_path} has no tracks" in refused(ConfigError, student, shards, out, replays=tmp_path)
    assert "embedder: is given without a behaviour head" in refused(ConfigError, student, shards, out, embedder="mine")
    assert "device: is 'abacus'" in refused(ConfigError, student, shards, out, device="abacus")
    assert "holds no manifest.json" in refused(ShardError, student, tmp_path, out)
    assert "is not there" in refused(CheckpointError, tmp_path / "nowhere", shards, out)


def test_a_student_that_does_not_fit_is_refused_before_its_teacher_runs(save_student, shards, teacher, tmp_path):
    student = save_student(str(teacher), out_channels=48)
    message = refused(CheckpointError, student, shards, tmp_path / "out")
    assert "(1, 48, 8, 8)" in message
    assert "(1, 32, 8, 8)" in message


def test_a_student_whose_teacher_is_unknown_or_gone_asks_for_it(save_student, shards, tmp_path):
    assert "Give --teacher" in refused(ConfigError, save_student(None), shards, tmp_path / "out")
    assert "Say with --teacher where it is now" in refused(
        ConfigError, save_student(str(tmp_path / "moved")), shards, tmp_path / "out"
    )


def test_a_checkpoint_that_is_none_is_refused(shards, tmp_path):
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(b"not a checkpoint")
    assert "last.ckpt" in refused(CheckpointError, checkpoint, shards, tmp_path / "out")
