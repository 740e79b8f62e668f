"""The array of jobs that fills a cache, simulated: the division of the work is the product's own."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PATH = Path(__file__).resolve().parents[2] / "slurm" / "plan_archive.py"
spec = importlib.util.spec_from_file_location("plan_archive", PATH)
plan = sys.modules["plan_archive"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plan)


@given(
    frames=st.integers(1, 3000), per_shard=st.integers(1, 400), workers=st.integers(1, 40), mtbf_h=st.floats(0.05, 8),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=50)
def test_whatever_fails_every_shard_is_finished_once(frames, per_shard, workers, mtbf_h, seed):
    images = plan.archive(frames, per_shard)
    cluster = plan.Cluster(workers=workers, mtbf_h=mtbf_h, frame_s=0.5)
    outcome = plan.simulate(images, cluster, seed)
    assert outcome.commits == {entry.file: 1 for entry in images.splits["train"]}
    assert sum(entry.samples for entry in images.splits["train"]) == frames


def test_512_jobs_with_failures_take_what_the_arithmetic_says():
    images = plan.archive(1_000_000, 512)
    cluster = plan.Cluster(workers=512, mtbf_h=1.0)
    outcome = plan.simulate(images, cluster, seed=0)
    clock_h, gpu_h = plan.predict(images, cluster)
    assert outcome.failures > 100
    assert set(outcome.commits.values()) == {1}
    assert outcome.gpu_hours == pytest.approx(gpu_h, rel=0.05)
    assert outcome.hours == pytest.approx(clock_h, rel=0.4)


def test_without_failures_and_differences_by_hand():
    cluster = plan.Cluster(workers=2, frame_s=1.0, start_s=60.0, mtbf_h=1e9, spread=0.0)
    outcome = plan.simulate(plan.archive(300, 100), cluster, seed=0)  # one job has two shards
    assert outcome.hours * 3600 == pytest.approx(260)
    assert outcome.gpu_hours * 3600 == pytest.approx(260 + 160)
    assert (outcome.failures, outcome.lost_frames) == (0, 0)


def test_the_command_prints_its_tables(capsys):
    assert plan.main(["--frames", "30000", "--workers", "16", "--per-shard", "500"]) == 0
    said = capsys.readouterr().out
    assert "int8" in said
    loaded = 125e12 / (2 * plan.TRAIN_MACS) * plan.LOAD_S  # cores beside the maps'
    assert re.search(rf"^float16 .* {loaded:.1f}$", said, re.MULTILINE)
    assert "every shard was finished once" in said


def test_a_validated_frame_costs_more_than_one_that_is_trained_on():
    """All of a validation's images have pyramids, a quarter of a training's: 49 + 2 x 214 G against 147 + 642 / 4 G."""
    assert pytest.approx(0.954e12) == 2 * plan.VAL_MACS
    assert pytest.approx(0.615e12) == 2 * plan.TRAIN_MACS
