import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pl_distill.reid import by_animal, pool_file
from pl_distill.reid.errors import PoolError, told_as_fault
from pl_distill.reid.identities import link
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.pool_file import POOL_FILE
from pl_distill.reid.sampling import SamplingPolicy
from pl_distill.reid.storage import decode, encode, normalised
from pl_distill.reid.thinning import thin
from tests.python_process import python_process


def test_the_defaults_are_the_papers_94_mb_for_an_animal_and_year():
    assert SamplingPolicy().budget_bytes(384) == 7 * 24 * 365 * 384 * 4 == 94_187_520
    assert SamplingPolicy(per_hour=14, storage="float16").budget_bytes(384) == 94_187_520


def test_of_each_slot_the_first_good_embedding_is_kept(pool, sample):
    slot = pool.sampling.slot_s
    samples = [sample(0), sample(1), sample(slot + 1), sample(slot + 2), sample(5 * slot)]
    assert pool.offer(samples) == [True, False, True, False, True]
    assert pool.offer([sample(5 * slot + 1)]) == [False]


def test_an_older_recording_fills_its_own_slots_once(open_pool, sample):
    """Monday's file may be read after Tuesday's."""
    with open_pool() as pool:
        slot, day = pool.sampling.slot_s, 86_400
        assert pool.offer([sample(2 * day), sample(2 * day + slot + 1)]) == [True, True]
        link(pool, pool.tracks_of(""), "rosa")
        again = [sample(2 * day + 5), sample(day), sample(day + 1), sample(day + slot + 1)]
        assert pool.offer(again) == [False, True, False, True]
    with open_pool() as pool:
        assert pool.offer([sample(day + 2), sample(day + 3 * slot + 1), sample(2 * day + slot + 2)]) == [
            False,
            True,
            False,
        ]
        assert pool.count() == {"rosa": 5}


def test_a_bad_crop_leaves_its_slot_to_the_next(open_pool, sample):
    with open_pool(sampling=SamplingPolicy(min_quality=0.5)) as pool:
        assert pool.offer([sample(0, quality=0.4), sample(1, quality=0.5)]) == [False, True]


def test_an_hour_of_frames_gives_as_many_embeddings_as_the_policy_says(pool, sample):
    kept = sum(sum(pool.offer([sample(3600 * 1000 + second)])) for second in range(0, 3600, 60))
    assert kept == pool.sampling.per_hour


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_what_was_stored_comes_back_after_the_process(open_pool, sample, unit, storage):
    vectors = unit(5, 16)
    with open_pool(sampling=SamplingPolicy(storage=storage)) as pool:
        pool.append([sample(1000.5 * row, vector=vector) for row, vector in enumerate(vectors)])
        link(pool, [0], "rosa")
    with open_pool() as pool:
        stored = pool.vectors(["rosa"])
        assert stored.times_s.tolist() == [1000.5 * row for row in range(5)]
        assert set(stored.animals) == {"rosa"}
        worst = {"float32": 0.0, "float16": 1e-3, "int8": 1e-2}[storage]
        assert np.abs(stored.vectors - vectors).max() <= worst
        assert np.linalg.norm(stored.vectors, axis=1) == pytest.approx(1)


@settings(max_examples=50)
@given(hnp.arrays(np.float32, (3, 24), elements=st.floats(-1, 1, width=32)))
def test_int8_turns_no_vector_by_more_than_a_degree_and_a_half(values):
    vectors = normalised(values)
    turned = decode(*encode(vectors, "int8"), "int8")
    whole = np.linalg.norm(vectors, axis=1) > 0.5
    assert ((turned * vectors).sum(1)[whole] >= np.cos(np.radians(1.5))).all()


def test_a_year_of_samples_costs_what_the_budget_says(tmp_path, unit):
    sampling = SamplingPolicy(storage="float16", per_hour=14)
    with EmbeddingPool(tmp_path / "pool", "b" * 64, 384, sampling) as pool:
        track = pool.add_track("cam", "s", 1, "rosa")
        rows = 14 * 24 * 60  # two months
        vectors = unit(rows, 384)
        for start in range(0, rows, 2000):
            part = slice(start, start + 2000)
            times = np.arange(rows)[part] * sampling.slot_s
            pool.append_arrays(np.full(len(times), track), times, vectors[part])
        assert pool.bytes_per_animal_year() <= 1.05 * sampling.budget_bytes(384)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embedder": "c" * 64}, "holds embeddings of embedder aaaaaaaaaaaaaaaa"),
        ({"dimension": 32}, "holds embeddings of 16 values"),
        ({"sampling": SamplingPolicy(storage="int8")}, "stores float32"),
    ],
)
def test_a_pool_of_another_kind_is_refused_by_name(open_pool, changes, words):
    open_pool().close()
    with pytest.raises(PoolError, match=words):
        open_pool(**changes)


def test_no_pool_is_refused_and_nothing_is_made(tmp_path):
    with pytest.raises(PoolError, match="holds no pool"):
        EmbeddingPool(tmp_path / "absent", read_only=True)
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_a_truncated_pool_is_refused_and_left_alone(open_pool, tmp_path, sample, unit, share):
    with open_pool() as pool:
        track = pool.add_track("cam", "s", 1, "rosa")
        pool.append_arrays(np.full(30_000, track), np.arange(30_000.0), unit(30_000, 16))
    file = tmp_path / "pool" / POOL_FILE
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(PoolError, match=r"truncated or damaged.*backup"):
        open_pool()
    assert file.read_bytes() == content[: int(share * len(content))]


def test_a_pool_of_many_short_runs_opens_again_and_its_last_vectors_are_not_cut_off_unnoticed(
    open_pool, tmp_path, unit
):
    """DuckDB cuts free blocks off the end of its file, and goes on counting them."""
    file, shorter = tmp_path / "pool" / POOL_FILE, 0
    for run in range(12):
        with open_pool() as pool:
            assert len(pool.vectors(["rosa"]).ids) == 10 * run
            track = pool.add_track("cam", f"run-{run}", 1, "rosa")
            pool.append_arrays(np.full(10, track), 600.0 * np.arange(10) + 6000 * run, unit(10, 16, seed=run))
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH '{file}' AS pool (READ_ONLY)")
            query = "SELECT total_blocks * block_size FROM pragma_database_size() WHERE database_name = 'pool'"
            ((counted,),) = connection.execute(query).fetchall()
        if file.stat().st_size < counted:
            shorter += 1
            content = file.read_bytes()
            file.write_bytes(content[:-1])
            with pytest.raises(PoolError, match="truncated or damaged"):
                open_pool()
            file.write_bytes(content)
    assert shorter


@pytest.mark.parametrize(
    ("vector", "found"),
    [
        (np.zeros(16), "has length 0"),
        (np.full(16, np.nan), "has length nan"),
        (np.ones(16), "has length 4"),
        (np.ones(8) / 8**0.5, r"has shape \(8,\), expected \(16,\)"),
    ],
)
def test_a_vector_that_is_no_embedding_is_refused_and_nothing_of_its_call_is_kept(pool, sample, vector, found):
    with pytest.raises(PoolError, match=f"track 2, camera 'cam'.*{found}"):
        pool.append([sample(0), sample(0, 2, vector=vector.astype(np.float32))])
    assert pool.rows("SELECT count(*) FROM vectors") == [(0,)]


def test_one_number_of_two_cameras_or_sessions_is_several_tracks(pool, sample):
    pool.append([sample(0, camera="a"), sample(0, camera="b"), sample(0, camera="a", session="later")])
    assert len(pool.track_names()) == 3


WRITER = """
import sys, numpy as np
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.samples import Sample
pool = EmbeddingPool(sys.argv[1], "a" * 64, 16)
vector = np.zeros(16, np.float32); vector[0] = 1
print("open", flush=True)
for step in range(100000):
    pool.append([Sample("cam", "s", number, float(step), vector) for number in range(4)])
    print(step, flush=True)
"""


def test_a_kill_loses_nothing_that_was_reported_and_leaves_no_half_of_a_call(tmp_path, open_pool):
    with python_process("-c", WRITER, tmp_path / "pool", stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(PoolError, match=f"in use by process {process.pid}"):
            open_pool()
        lines = [process.stdout.readline() for _ in range(20)]
        process.kill()
        last = int((lines + process.stdout.read().splitlines())[-1])
    with open_pool() as pool:
        ((rows, steps),) = pool.rows("SELECT count(*), count(DISTINCT time) FROM vectors")
    assert steps in (last + 1, last + 2)  # the last call may have been committed and not printed
    assert rows == 4 * steps


@contextmanager
def full_disk(size):
    """No file may grow beyond so many bytes, which DuckDB takes like a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_as_such_and_what_was_committed_before_is_whole(open_pool, sample):
    with open_pool() as pool:
        pool.append([sample(0, number) for number in range(3)])
        with full_disk(150_000), pytest.raises(PoolError, match=r"File too large.*Free space") as raised:
            pool.append([sample(1000.0 * step, 2 + step % 2) for step in range(2000)])
        assert "rollback" not in str(raised.value.__cause__)
        assert len(pool.track_names()) == 3
        pool.append([sample(1000, number) for number in (3, 4)])  # there is room again
    with open_pool() as pool:
        assert pool.count() == {"": 5}
        assert sorted(pool.track_names()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [0, 4096, 12288, 100_000])
def test_a_full_disk_leaves_no_half_of_a_new_pool(open_pool, tmp_path, size):
    with full_disk(size), pytest.raises(PoolError, match=r"pool/pool.duckdb: cannot be written.*Free space"):
        open_pool()
    assert list((tmp_path / "pool").iterdir()) == []
    open_pool().close()


def test_compacting_on_a_full_disk_changes_nothing(pool, sample):
    pool.append([sample(1000.0 * step) for step in range(500)])
    pool.size_bytes()
    with full_disk(50_000), pytest.raises(PoolError, match="Free space"):
        pool.compact()
    assert [file.name for file in pool.path.iterdir()] == [POOL_FILE]
    pool.append([sample(1e6)])
    pool.compact()
    assert pool.count() == {"": 501}


def test_whatever_is_asked_of_a_file_that_lost_its_disk_is_answered_by_name(pool, sample):
    pool.append([sample(1000.0 * step) for step in range(500)])
    with full_disk(50_000), pytest.raises(PoolError, match="Free space"):
        pool.size_bytes()
    asked = (
        pool.count, pool.vectors, pool.compact, lambda: pool.append([sample(1e6)]),
        lambda: pool.offer([sample(1e6)]), lambda: pool.add_track("cam", "s", 99), lambda: pool.delete(np.arange(3)),
        lambda: pool.assign([0], "rosa"), lambda: link(pool, [0], "rosa"),
    )  # fmt: skip
    for ask in asked:
        with pytest.raises(PoolError, match="Free space"):
            ask()


KILLED = """
import os, signal, sys
from pl_distill.reid import pool_file
from pl_distill.reid.pool import EmbeddingPool
pool_file._create_tables = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
EmbeddingPool(sys.argv[1], "a" * 64, 16)
"""


def test_a_kill_while_a_pool_is_made_leaves_room_for_another(tmp_path, open_pool):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "pool")], check=False)
    assert done.returncode == -signal.SIGKILL
    with open_pool() as pool:
        assert pool.count() == {}


def test_who_makes_a_pool_later_than_another_process_gets_that_ones(tmp_path, open_pool, sample, monkeypatch):
    with open_pool() as pool:
        pool.append([sample(0)])
    other = shutil.move(tmp_path / "pool" / POOL_FILE, tmp_path / "other")
    create = pool_file._create_tables

    def slowly(*values):
        create(*values)
        shutil.move(other, tmp_path / "pool" / POOL_FILE)

    monkeypatch.setattr(pool_file, "_create_tables", slowly)
    with open_pool() as pool:
        assert pool.count() == {"": 1}
    assert [file.name for file in (tmp_path / "pool").iterdir()] == [POOL_FILE]


def test_a_log_without_its_pool_is_left_for_the_user(tmp_path, open_pool):
    log = tmp_path / "pool" / f"{POOL_FILE}.wal"
    log.parent.mkdir()
    log.write_bytes(b"a log")
    with pytest.raises(PoolError, match=re.escape(f"lies there without {POOL_FILE}")):
        open_pool()
    assert [file.name for file in log.parent.iterdir()] == [log.name]


def test_thinning_keeps_what_nothing_can_replace(pool, sample, unit):
    looks = unit(2, 16, seed=3)
    times = np.arange(10) * 1000.0
    vectors = normalised(looks[[0] + [1] * 9] + 0.01 * unit(10, 16))
    pool.append([sample(time_s, vector=vector) for time_s, vector in zip(times, vectors, strict=True)])
    link(pool, [0], "rosa")
    assert thin(pool, "rosa", keep=1) == 8
    kept = pool.vectors(["rosa"])
    assert kept.times_s.tolist() == [0.0, 9000.0]  # the only one of its look, and the newest of the others
    assert thin(pool, "rosa", keep=1) == 0


def test_thinning_never_replaces_a_look_by_one_that_goes_later(pool, sample):
    """Seven looks, 15 degrees apart: neighbours replace each other, but the first and the last are at right angles."""
    angles = np.radians(15 * np.arange(7))
    looks = np.zeros((7, 16), np.float32)
    looks[:, 0], looks[:, 1] = np.cos(angles), np.sin(angles)
    pool.append([sample(1000.0 * step, vector=look) for step, look in enumerate(looks)])
    link(pool, [0], "rosa")
    assert thin(pool, "rosa", keep=1) == 4
    assert pool.vectors(["rosa"]).times_s.tolist() == [1000, 4000, 6000]


@settings(max_examples=10)
@given(
    hnp.arrays(np.float32, (12, 3), elements=st.floats(-1, 1, width=16)),
    st.integers(1, 12),
    st.sampled_from((0.0, 0.5, 0.9)),
)
def test_every_look_that_is_thinned_out_keeps_a_partner(values, keep, replaceable):
    looks = np.zeros((12, 16), np.float32)
    looks[:, :3], looks[:, 3] = values, 0.1  # none is empty
    looks = normalised(looks)
    with TemporaryDirectory() as folder, EmbeddingPool(folder, "a" * 64, 16) as pool:
        track = pool.add_track("cam", "s", 1, "rosa")
        pool.append_arrays(np.full(12, track), np.arange(12.0), looks)
        gone = thin(pool, "rosa", keep, replaceable)
        kept = pool.vectors(["rosa"]).vectors
    assert len(kept) == 12 - gone >= keep
    assert ((looks @ kept.T).max(axis=1) >= replaceable - 1e-5).all()


def test_compacting_gives_space_back_and_keeps_the_rest(pool, unit, sample):
    track = pool.add_track("cam", "s", 1, "rosa")
    pool.append_arrays(np.full(40_000, track), np.arange(40_000.0), unit(40_000, 16))
    before = pool.size_bytes()
    pool.delete(np.arange(39_000))
    pool.compact()
    assert pool.size_bytes() < before / 2
    assert pool.vectors().times_s.tolist() == list(range(39_000, 40_000))
    pool.append([sample(50_000)])
    assert pool.count() == {"rosa": 1001}


def test_a_compacted_pool_still_knows_its_older_slots(pool, sample):
    day, slot = 86_400, pool.sampling.slot_s
    pool.append([sample(0), sample(day)])
    link(pool, [0], "rosa")
    pool.compact()
    assert pool.offer([sample(1), sample(slot + 1), sample(day + 1)]) == [False, True, False]


def test_newest_and_first_choose_rows(pool, sample):
    pool.append([sample(1000.0 * step) for step in range(6)])
    pool.append([sample(4000.0 + 1000.0 * step, number=2) for step in range(6)])
    link(pool, [0], "rosa")
    link(pool, [1], "berta")
    first = pool.vectors(first_s=3000)  # of each by its own clock
    assert first.animals.tolist() == ["berta"] * 3 + ["rosa"] * 3
    assert first.times_s.tolist() == [4000, 5000, 6000, 0, 1000, 2000]
    pool.assign([1], "rosa")
    assert pool.vectors(first_s=3000).times_s.tolist() == [0, 1000, 2000]
    assert pool.vectors(newest=2).times_s.tolist() == [8000, 9000]
    assert len(pool.vectors(["nobody"]).ids) == 0


def test_a_question_for_which_there_is_no_memory_blames_no_file(pool, sample):
    """Who is told that a healthy pool is damaged moves it away, and all identities with it."""
    pool.append([sample(1000.0 * step) for step in range(3000)])
    pool.rows("SET memory_limit = '1MB'")
    pool.rows("SET temp_directory = ''")
    with pytest.raises(PoolError, match="more than there is room for") as caught:
        pool.vectors([""])
    assert "The file is whole" in caught.value.fix
    pool.rows("SET memory_limit = '1GB'")
    assert len(pool.vectors([""]).ids) == 3000


STOPPED = """
import os, signal, sys
import numpy as np
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.samples import Sample
pool, held = EmbeddingPool(sys.argv[1], "a" * 64, 16), []
def stop(track, *rest):
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    held.append(track)
    return added(track, *rest)
added, pool.add_track = pool.add_track, stop
if sys.argv[3] != "SIG_DFL":
    signal.signal(getattr(signal, sys.argv[2]), getattr(signal, sys.argv[3]))
try:
    pool.append([Sample("cam", "s", 1, 0.0, np.eye(16, dtype=np.float32)[0])])
except KeyboardInterrupt:
    print("stopped", end=" ")
print(held, pool.count(), flush=True)
"""


@pytest.mark.parametrize(
    ("stop", "handler", "code", "said"),
    [
        ("SIGINT", "default_int_handler", 0, "stopped ['cam'] {'': 1}\n"),
        ("SIGTERM", "default_int_handler", 0, "stopped ['cam'] {'': 1}\n"),  # as `track` takes it
        ("SIGTERM", "SIG_DFL", -signal.SIGTERM, ""),
        ("SIGINT", "SIG_IGN", 0, "['cam'] {'': 1}\n"),  # of nohup
    ],
)
def test_a_stop_in_the_middle_of_a_commit_waits_for_its_end(stop, handler, code, said, tmp_path):
    words = [sys.executable, "-c", STOPPED, str(tmp_path / "pool"), stop, handler]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (code, said)
    with EmbeddingPool(tmp_path / "pool") as pool:
        assert pool.count() == {"": 1}


def test_a_question_that_is_stopped_is_a_stop_and_no_damage(pool):
    with pytest.raises(KeyboardInterrupt), told_as_fault(pool.path):
        raise RuntimeError("Query interrupted")
    with pytest.raises(RuntimeError, match="another"), told_as_fault(pool.path):
        raise RuntimeError("another")


def test_a_large_pool_is_read_by_few_animals_at_a_time(pool, sample, monkeypatch):
    monkeypatch.setattr(by_animal, "AT_ONCE", 5)
    counts = {"a": 3, "b": 2, "c": 9, "d": 1, "e": 3}
    for number, (name, count) in enumerate(counts.items()):
        pool.append([sample(1e5 * number + 1000.0 * step, number) for step in range(count)])
        link(pool, [number], name)
    asked, vectors = [], pool.vectors
    monkeypatch.setattr(pool, "vectors", lambda names, first_s=None: asked.append(names) or vectors(names, first_s))
    read = {str(stored.animals[0]): len(stored.ids) for stored in by_animal.vectors_by_animal(pool)}
    assert read == counts
    assert asked == [["a", "b"], ["c"], ["d", "e"]]
    first = {str(one.animals[0]): len(one.ids) for one in by_animal.vectors_by_animal(pool, ["e", "c"], first_s=2500)}
    assert first == {"e": 3, "c": 3}


def test_what_does_not_fit_into_memory_goes_beside_the_pool_and_not_where_the_process_was_started(pool):
    ((folder,),) = pool.rows("SELECT current_setting('temp_directory')")
    assert Path(folder).parent == pool.path
    assert pool.rows("SELECT current_setting('memory_limit')") == [("953.6 MiB",)]
