"""The feature cache at real size: what hashing and syncing cost, what reading costs, and whether memory stays flat.

Maps are 72 x 72 x 1024 float16, 10.6 MB, frames 1280 x 720. What is read lies in the page cache: the ratios are of our
own work, not of a disk. One thread hashes a shard while another writes it, and the kernel a third part: without free
cores for them the ratio of writing halves.
"""

import os
import shutil
import statistics
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

from datamodules.background import BackgroundQueue
from datamodules.cache_manifest import CacheIdentity
from datamodules.cached_views import CachedViews
from datamodules.clip import Clip, Image
from datamodules.codec_basis import fit_basis
from datamodules.codecs import FLOAT16, Codec, Int8, Map, PcaInt8
from datamodules.distillation import CachedSample, CachedSamples, collate
from datamodules.feature_shard import FeatureShard, FeatureShardWriter
from datamodules.images import decode_image, encode_jpeg
from datamodules.pen import load_pen_config, pen_frames
from datamodules.preprocessing import Preprocessing
from datamodules.shard_manifest import ShardManifest
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.evaluation.memory import rss_bytes
from tests.benchmarks.measure import Figure, median_cpu_ms, median_ms, ratio_of_times

SHAPE = (1024, 72, 72)
MAPS = 40  # of 10.6 MB
SLOW_MAPS = 6 * MAPS  # enough for the trend: the allocator of C keeps or gives back a few maps as it likes
ROUNDS = 7
FRAMES = 12
DAY = "2026_01_01"
IDENTITY = CacheIdentity("0" * 64, Preprocessing().describe(), "32-true", "sdpa", {}, "random numbers")
FILE = "train/train-000000.tar"


def measure() -> list[Figure]:
    """Write and read random maps; random numbers compress least, and take as long as any others."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(4, *SHAPE, generator=generator).half()
    with TemporaryDirectory() as folder:
        return [
            *_writing(Path(folder), maps),
            *_memory(Path(folder), maps),
            *_reading(Path(folder), maps),
            *_codecs(maps),
            *_loading(maps),
        ]


def _writing(folder: Path, maps: torch.Tensor) -> list[Figure]:
    arrays = [maps[number % len(maps)].numpy() for number in range(MAPS)]

    def dump(sync: bool) -> None:
        with (folder / "dump").open("wb") as file:
            for array in arrays:
                file.write(array.data.cast("B"))
            file.flush()
            if sync:
                os.fsync(file.fileno())

    ratios: list[tuple[float, float]] = []
    for _ in range(ROUNDS + 1):
        synced, unsynced, ours = (
            _seconds_of_new_file(folder, action)
            for action in (lambda: dump(True), lambda: dump(False), lambda: _write_shard(folder / "cache", arrays))
        )
        ratios.append((synced / ours, unsynced / ours))
    over_synced, over_unsynced = (statistics.median(column) for column in zip(*ratios[1:], strict=True))
    return [
        Figure("cache.write_over_synced_dump_speed", over_synced, "ratio", ">= 0.8"),
        Figure("cache.write_over_unsynced_dump_speed", over_unsynced, "ratio"),
    ]


def _seconds_of_new_file(folder: Path, action: Callable[[], None]) -> float:
    """Time `action`; what it wrote is deleted outside of the time, for a shard is never written over another."""
    begin = time.perf_counter()
    action()
    seconds = time.perf_counter() - begin
    shutil.rmtree(folder / "cache", ignore_errors=True)
    (folder / "dump").unlink(missing_ok=True)
    os.sync()  # or the next one waits for this one's pages
    return seconds


def _memory(folder: Path, maps: torch.Tensor) -> list[Figure]:
    """Send maps to a disk that is slower than the teacher."""
    with FeatureShardWriter(
        folder / "slow", FILE, samples=SLOW_MAPS, image_sha256="0" * 64, identity=IDENTITY
    ) as writer:

        def write(values: Map) -> None:
            time.sleep(0.02)
            writer.append("frame", values)

        queue = BackgroundQueue(write, size=4, name="slow disk")
        sizes = []
        for number in range(SLOW_MAPS):
            queue.put(FLOAT16.quantise(maps[number % len(maps)].float()))  # a copy, as of a map that the teacher made
            sizes.append(rss_bytes())
        queue.close()
    return [Figure("cache.write_rss_growth_with_slow_disk", _growth_mib(sizes), "MiB", "<= 22")]  # two maps


def _growth_mib(sizes: list[int]) -> float:
    """Return how much the mean of a run's last third is above that of its second; the first is the start."""
    third = len(sizes) // 3
    return (statistics.mean(sizes[-third:]) - statistics.mean(sizes[third : 2 * third])) / 2**20


def _reading(folder: Path, maps: torch.Tensor) -> list[Figure]:
    images = _draw(folder / "images")
    (entry,) = images.splits["train"]
    path = images.path(entry)
    _write_shard(
        folder / "cache",
        [maps[n % len(maps)].numpy() for n in range(FRAMES)],
        [f"{DAY}-000000-f{n:06d}" for n in range(FRAMES)],
    )
    preprocessing = Preprocessing()
    samples = CachedSamples(
        [path], [FRAMES], [FeatureShard(folder / "cache" / FILE, FRAMES)], preprocessing, CachedViews()
    )

    def ours() -> None:
        for number in range(FRAMES):
            sample = samples[number]
            _use(sample["image"], torch.from_numpy(sample["teacher_map"]))

    def bare(prepare: bool) -> None:
        with tarfile.open(folder / "cache" / FILE) as features, tarfile.open(path) as pictures:
            for picture, data in zip(_members(pictures, ".jpg"), _members(features, ".npy"), strict=True):
                image = decode_image(picture)
                tensor = preprocessing(image) if prepare else torch.from_numpy(image)
                _use(tensor, torch.from_numpy(np.load(BytesIO(data))))

    sizes = []
    for number in range(20 * FRAMES):
        _ = samples[number % FRAMES]
        sizes.append(rss_bytes())
    return [
        Figure("cache.read_over_bare_loop_speed", ratio_of_times(lambda: bare(True), ours), "ratio", ">= 0.9"),
        Figure("cache.read_over_bare_loop_without_resize_speed", ratio_of_times(lambda: bare(False), ours), "ratio"),
        Figure("cache.read_rss_growth", _growth_mib(sizes), "MiB", "<= 22"),
    ]


def _codecs(maps: torch.Tensor) -> list[Figure]:
    """What a frame costs to store and to read, on one core."""
    one = maps[:1].float()
    basis = fit_basis(maps[:, :, ::9, ::9].float().flatten(2).transpose(1, 2))
    figures = []
    for codec in (FLOAT16, Int8(), PcaInt8(basis)):
        data = _encode(codec, one)
        figures.append(Figure(f"cache.{codec.name}.encode_ms", median_ms(lambda c=codec: _encode(c, one), 5), "ms"))
        figures.append(Figure(f"cache.{codec.name}.decode_ms", median_ms(lambda c=codec, d=data: c.unpack(d), 5), "ms"))
    return figures


def _loading(maps: torch.Tensor) -> list[Figure]:
    """What a frame costs a worker of the loader beside its map: slurm/plan_archive.py counts with it.

    Joined batches are moved to shared memory, as a worker does that sends one. The picture is noise, smoothed until its
    JPEG has about the 280,000 bytes that are assumed for a photograph.
    """
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3)).astype(np.float32)
    picture: Image = cv2.GaussianBlur(noise, (0, 0), 2).astype(np.uint8)
    preprocessing, jpeg = Preprocessing(), encode_jpeg(picture, 95)
    image, batch = preprocessing(picture), range(8)
    samples: list[CachedSample] = [
        {"key": "frame", "image": image.clone(), "teacher_map": maps[number % len(maps)].numpy()} for number in batch
    ]

    def join() -> None:
        joined = collate(samples)
        joined["image"].share_memory_()
        joined["teacher_map"].share_memory_()

    return [
        Figure("loader.jpeg_bytes", len(jpeg), "bytes"),
        Figure("loader.decode_cpu_ms", median_cpu_ms(lambda: decode_image(jpeg), ROUNDS), "ms"),
        Figure("loader.preprocess_cpu_ms", median_cpu_ms(lambda: preprocessing(picture), ROUNDS), "ms"),
        Figure("loader.join_cpu_ms", median_cpu_ms(join, ROUNDS) / len(batch), "ms"),
    ]


def _encode(codec: Codec, maps: torch.Tensor) -> bytes:
    return b"".join(codec.pack(codec.quantise(maps)[0]))


def _write_shard(cache: Path, arrays: list[Map], keys: list[str] | None = None) -> None:
    with FeatureShardWriter(cache, FILE, samples=len(arrays), image_sha256="0" * 64, identity=IDENTITY) as writer:
        for number, array in enumerate(arrays):
            writer.append(keys[number] if keys else f"frame-{number}", array)
        writer.commit()


def _members(tar: tarfile.TarFile, suffix: str) -> Iterator[bytes]:
    for member in tar:
        if member.name.endswith(suffix):
            stream = tar.extractfile(member)
            assert stream is not None
            yield stream.read()


def _use(image: torch.Tensor, teacher_map: torch.Tensor) -> None:
    """Touch the last number of both, which are wholly read by then."""
    assert image.flatten()[-1] is not None
    assert teacher_map.flatten()[-1] is not None


@dataclass(frozen=True)
class _Pen:
    """Drawn frames, enlarged to the size of the Edinburgh recordings."""

    frames: int

    def __iter__(self) -> Iterator[Image]:
        for frame in pen_frames(load_pen_config("day"), seed=1, frames=self.frames):
            yield cv2.resize(frame.image, (1280, 720))

    def fingerprint(self) -> str:
        return f"pen {self.frames}"


def _draw(folder: Path) -> ShardManifest:
    clip = Clip(f"{DAY}/000000", DAY, 6.0, 1280, 720, FRAMES, _Pen(FRAMES))
    return write_shards([clip], load_split("pen"), folder)
