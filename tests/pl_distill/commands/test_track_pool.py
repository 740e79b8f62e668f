"""`pl-distill track --pool`: the live chain from the command line, over a restart, and its mistakes."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from datamodules.images import encode_jpeg
from datamodules.masks import decode_masks
from datamodules.video_writer import VideoWriter
from pl_distill.cli import main
from pl_distill.models.embedder_load import load_embedder
from pl_distill.models.sam3 import write_random_sam3
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.record_files import read_hours
from pl_distill.reid.samples import Sample

FRAMES = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_random_sam3("tiny", tmp_path_factory.mktemp("sam3") / "teacher", seed=0))


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("video") / "pen.mp4"
    with VideoWriter(path, fps=6, width=64, height=48) as writer:
        for number in range(FRAMES):
            image = np.random.default_rng(0).integers(40, 80, (48, 64, 3)).astype(np.uint8)
            for left in (4, 30, 46):
                image[8 + 2 * number : 24 + 2 * number, left : left + 12] = (230, 150, 120)
            writer.write(image)
    return str(path)


SHOW_ALL = "--policy.retirement.hidden_frames=0"  # with random weights nothing confirms a track


def track(video, model, out, *options) -> int:
    words = [
        "track",
        video,
        "--model",
        model,
        "--out",
        str(out),
        "--device=cpu",
        "--annotated=false",
        SHOW_ALL,
        *options,
    ]
    return main(words)


def test_pictures_too_far_apart_for_a_record_are_refused(model, tmp_path, capsys):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "1.jpg").write_bytes(encode_jpeg(np.zeros((48, 64, 3), np.uint8), 80))
    options = (f"--pool={tmp_path / 'pool'}", "--picture_fps=0.4")
    assert track(str(pictures), model, tmp_path / "out", *options) == 1
    assert "--picture_fps 0.4: puts 2.5 s between pictures, expected at most --place.max_gap_s (2 s)" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "pool").exists()


def test_every_tracked_animal_is_described_and_who_has_a_name_is_kept_over_a_restart(model, video, tmp_path, capsys):
    pool, named = tmp_path / "pool", []
    for run, began in enumerate(("2026-01-26T08:00:00", "2026-01-26T09:30:00")):
        out = tmp_path / f"out{run}"
        assert track(video, model, out, f"--pool={pool}", f"--began={began}") == 0
        assert f"pool      {pool}" in capsys.readouterr().out
        lines = [json.loads(line) for line in (out / "animals.jsonl").read_text().splitlines()]
        masks = [json.loads(line) for line in (out / "masks.jsonl").read_text().splitlines()]
        seen = [row for row in masks if decode_masks([row["segmentation"]]).any()]  # not all covered by others
        assert [(line["image_id"], line["track_id"]) for line in lines] == [
            (row["image_id"], row["track_id"]) for row in seen
        ]
        named.append({line["animal"] for line in lines} - {None})
    embedder = load_embedder()
    with EmbeddingPool(pool, embedder.identity, embedder.dimension, read_only=True) as kept:
        counts = kept.count()
        (first,) = kept.rows("SELECT count(*) FROM vectors WHERE time < TIMESTAMP '2026-01-26 09:00:00'")
    assert named[0]
    assert set(counts) == named[0] | named[1]  # a random model's tracks may stay in doubt: they leave nothing
    assert first == (len(named[0]),)
    hours = read_hours(pool / "record")
    assert set(hours["animal"]) == named[0] | named[1]


def test_a_recording_is_taken_once(model, video, tmp_path, capsys):
    options = (f"--pool={tmp_path / 'pool'}", "--began=2026-01-26T08:00:00")
    assert track(video, model, tmp_path / "a", *options) == 0
    record = sorted((tmp_path / "pool/record").rglob("*.parquet"))
    before = [path.read_bytes() for path in record]
    assert track(video, model, tmp_path / "b", *options) == 1
    assert "has a run in the pool that began at 2026-01-26T08:00:00.000" in capsys.readouterr().err
    assert [path.read_bytes() for path in record] == before
    assert track(video, model, tmp_path / "c", *options, "--camera=other") == 0


def test_a_recording_of_another_ones_time_is_refused_and_one_without_a_time_told_of(model, video, tmp_path, capsys):
    embedder = load_embedder()
    began = datetime(2026, 1, 26, 8, tzinfo=UTC).timestamp()
    look = np.eye(1, embedder.dimension, dtype=np.float32)[0]
    with EmbeddingPool(tmp_path / "pool", embedder.identity, embedder.dimension) as pool:
        pool.append([Sample("camera", "by hand", 0, began + 600 * number, look) for number in range(7)])
    rarely = ("--picture_fps=0.02", "--place.max_gap_s=60", "--policy.retirement.pause_s=60")  # 50 s apart
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        (pictures / f"{number}.jpg").write_bytes(encode_jpeg(np.zeros((48, 64, 3), np.uint8), 80))
    options = (f"--pool={tmp_path / 'pool'}", *rarely)
    assert track(str(pictures), model, tmp_path / "a", *options, "--began=2026-01-26T08:30:00") == 1
    told = capsys.readouterr()
    assert "this recording from 2026-01-26T08:30:00.000+00:00 to 2026-01-26T08:32:30.000+00:00" in told.err
    assert "without --began" not in told.out
    assert track(str(pictures), model, tmp_path / "b", *options) == 0
    assert "note: without --began the recording counts as one that begins now" in capsys.readouterr().out


def test_a_pool_keeps_the_sampling_that_it_was_made_for(model, video, tmp_path, capsys):
    pool = f"--pool={tmp_path / 'pool'}"
    half = ("--sampling.per_hour=14", "--sampling.storage=float16")
    assert track(video, model, tmp_path / "a", pool, *half, "--identify.gallery=sightings") == 0
    assert track(video, model, tmp_path / "b", pool, "--identify.gallery=mean", "--identify.half_life_days=30") == 0
    with EmbeddingPool(tmp_path / "pool", read_only=True) as kept:
        assert (kept.sampling.per_hour, kept.sampling.storage) == (14, "float16")
    assert track(video, model, tmp_path / "c", pool, "--sampling.storage=int8") == 1
    assert "stores float16" in capsys.readouterr().err


def test_mistakes_are_answered_in_one_line_and_leave_nothing(model, video, tmp_path, capsys):
    with EmbeddingPool(tmp_path / "other", "another embedder", 7):
        pass
    cases = [
        ([f"--pool={tmp_path / 'other'}"], "embedder"),
        ([f"--pool={tmp_path / 'p'}", "--began=yesterday"], "is no time"),
        ([f"--pool={tmp_path / 'p'}", "--embedder=nobody"], "is no folder"),
        (["--behaviour=nothing"], "cannot be read"),
    ]
    for options, message in cases:
        assert track(video, model, tmp_path / "out", *options) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
