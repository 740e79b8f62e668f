"""The thread that writes the cache: slow disks, full disks, and what a kill may cost."""

import threading
import time
import weakref
from pathlib import Path

import pytest

from callbacks.feature_cache_writer import FeatureCacheWriter
from datamodules.cached_views import CachedViews
from datamodules.codecs import Float16
from datamodules.errors import UserError
from datamodules.feature_cache import FeatureCache
from datamodules.feature_shard import FeatureShardWriter


class _Disk:
    """Stands in for the disk: slow, or full at a given map; counts what was written by whom."""

    def __init__(self, monkeypatch, *, seconds: float = 0.0, full_at: int | None = None) -> None:
        self.threads: set[str] = set()
        self.written = 0
        append = FeatureShardWriter.append

        def slow_append(writer, key, values):
            time.sleep(seconds)
            if self.written == full_at:
                raise OSError(28, "No space left on device")
            self.written += 1
            self.threads.add(threading.current_thread().name)
            append(writer, key, values)

        monkeypatch.setattr(FeatureShardWriter, "append", slow_append)


@pytest.mark.parametrize("queue", [1, 3])
def test_memory_stays_flat_when_the_disk_is_slower_than_the_teacher(
    queue, teacher, tmp_path, monkeypatch, predict, draw
):
    pen = draw(tmp_path / "pen", days={"2026_01_01": 3})
    maps: list[weakref.ref] = []
    alive: list[int] = []
    made_meanwhile: list[int] = []
    quantise, append = Float16.quantise, FeatureShardWriter.append

    def counted(codec, batch):
        values = quantise(codec, batch)
        maps.append(weakref.ref(values))
        alive.append(sum(one() is not None for one in maps))
        return values

    def stuck(writer, key, values):
        """Take the first map when the queue has long been full."""
        if not made_meanwhile:
            until = time.monotonic() + 60
            while len(maps) < queue + 2 and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.3)
            made_meanwhile.append(len(maps))
        append(writer, key, values)

    monkeypatch.setattr(Float16, "quantise", counted)
    monkeypatch.setattr(FeatureShardWriter, "append", stuck)
    views = CachedViews(4)  # 12 maps in one shard: no wait between shards hides the queue's
    assert predict(teacher, pen, tmp_path / "cache", writer=FeatureCacheWriter(queue), views=views) == 12
    assert len(alive) == 12
    assert made_meanwhile == [queue + 2]  # those that wait, the one in the thread's hand, and the one to be put
    assert max(alive) <= queue + 2 + 5  # and those that are not hashed yet
    FeatureCache.open(tmp_path / "cache", shards=pen).verify()


def test_a_queue_without_room_is_refused():
    with pytest.raises(UserError, match="queue_batches: is 0, expected at least 1"):
        FeatureCacheWriter(queue_batches=0)


@pytest.mark.parametrize("full_at", [1, 8])  # in the middle, and at the very last map
def test_an_error_of_the_disk_stops_the_run_and_leaves_nothing_half_written(
    full_at, teacher, pen, whole, tmp_path, monkeypatch, predict, contents
):
    cache = tmp_path / "cache"
    with monkeypatch.context() as patched:
        _Disk(patched, full_at=full_at)
        with pytest.raises(OSError, match="No space left"):
            predict(teacher, pen, cache)
    assert not [path for path in cache.rglob("*") if "partial" in path.name]
    assert not (cache / "manifest.json").exists()
    assert not any(thread.name == "feature cache writer" for thread in threading.enumerate())
    predict(teacher, pen, cache)
    assert contents(cache) == contents(whole)


def test_the_teacher_starts_no_shard_before_the_last_one_is_in_place(teacher, pen, tmp_path, monkeypatch, predict):
    """Or kill -9 would cost two: the one that waits for the disk and the one in hand."""
    _Disk(monkeypatch, seconds=0.03)
    cache, started = tmp_path / "cache", []

    class Started(FeatureCacheWriter):
        def write(self, batch, maps):
            super().write(batch, maps)
            started.append((batch["shard"], sorted(path.name for path in cache.rglob("*.tar"))))

    predict(teacher, pen, cache, writer=Started())
    assert len(started) == 9
    for shard, finished in started:
        before = ["train-000000.tar", "train-000001.tar", "train-000002.tar", "val-000000.tar"]
        assert finished[: before.index(Path(shard).name)] == before[: before.index(Path(shard).name)]
