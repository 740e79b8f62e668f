"""What the whole archive costs: bytes, GPU hours, reads per node, and a simulated array of jobs that fail.

    python slurm/plan_archive.py --frames 3429000 --workers 512

Prints the tables of docs/whole-archive.md. The array's division of the work is the product's own
(`datamodules.cache_progress.owned_by`); what a killed job does again is what the ledger lacks.
"""

import argparse
import heapq
import math
import random
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.cache_progress import owned_by
from datamodules.shard_manifest import ShardEntry, ShardManifest
from datamodules.shard_plan import shard_sizes

MAP_BYTES = 2 * 1024 * 72 * 72  # SAM 3's trunk map in float16
JPEG_BYTES = 280_000  # 1280 x 720 at quality 95, an estimate: 6 GB for the 21,600 annotated frames
CODECS = {"float16": (1.0, 0.0), "int8": (0.504, 11e-3), "pca-int8": (0.138, 110e-3)}  # part of the bytes, s to decode
# Core time of a frame in a worker of the loader (`python -m tests.benchmarks --only bench_cache`): its JPEG is decoded,
# resized and normalised to float32, joined to a batch, copied to shared memory. The last hangs on the machine most.
DECODE_S, PREPROCESS_S, JOIN_S = 3.5e-3, 5.2e-3, 27e-3
LOAD_S = DECODE_S + PREPROCESS_S + JOIN_S
TRUNK_MACS = 2_699e9  # multiply-adds of the trunk at 1008 px, counted on the meta device; necks are not cached
TRAIN_MACS = 147e9 + 642e9 / 4  # student forward and back; pyramids of both maps and back, of a quarter of the images
VAL_MACS = (
    147e9 / 3 + 642e9 * 2 / 3
)  # student forward alone; pyramids of both maps, of all images, without the way back


@dataclass(frozen=True)
class Cluster:
    """What one job is assumed to be.

    Args:
        workers: Jobs of the array, all running at once.
        frame_s: Seconds of GPU per frame of the teacher.
        start_s: From a job's start to its first frame.
        mtbf_h: Hours between two failures of one job, exponentially distributed; preemptions count as such.
        wait_s: From a failure to the next start.
        spread: Standard deviation of the logarithm of a job's speed: nodes are not alike.
    """

    workers: int = 512
    frame_s: float = 0.5
    start_s: float = 60.0
    mtbf_h: float = 8.0
    wait_s: float = 180.0
    spread: float = 0.05


@dataclass(frozen=True)
class Outcome:
    """What a simulated array did.

    Args:
        hours: Until the last job ended.
        gpu_hours: Of all jobs, starts and lost work included.
        failures: How many.
        lost_frames: Computed and thrown away.
        commits: How often each shard was finished.
    """

    hours: float
    gpu_hours: float
    failures: int
    lost_frames: int
    commits: Counter[str]


def archive(frames: int, per_shard: int) -> ShardManifest:
    """Return the manifest of an archive, as `pl-distill data shards` would divide it."""
    sizes = enumerate(shard_sizes(frames, per_shard))
    entries = [ShardEntry(f"train/train-{number:06d}.tar", "0" * 64, 0, size, ()) for number, size in sizes]
    splits = {"train": tuple(entries), "val": (), "test": ()}
    return ShardManifest(Path("archive"), "archive", "", 95, {}, splits)


def simulate(images: ShardManifest, cluster: Cluster, seed: int) -> Outcome:
    """Run the array: events in the order of time, each the end of a shard or of a job."""
    generator = random.Random(seed)
    sizes = {entry.file: entry.samples for entry in images.splits["train"]}
    order = [entry.file for entry in images.splits["train"]]
    ledger: Counter[str] = Counter()
    todo: list[list[str]] = []
    for worker in range(cluster.workers):
        own = owned_by(worker, cluster.workers, images, ("train",))
        todo.append([file for file in order if file in own])
    speed = [math.exp(generator.gauss(0, cluster.spread)) for _ in range(cluster.workers)]
    dies = [0.0] * cluster.workers
    busy = lost = failures = 0.0
    ended = 0.0
    events: list[tuple[float, int, str | None, float]] = []  # when, worker, shard it finishes, when it began that

    def begin(worker: int, now: float, fresh: bool) -> None:
        missing = [file for file in todo[worker] if not ledger[file]]
        todo[worker] = missing  # a start reads the ledger
        if fresh:
            dies[worker] = now + generator.expovariate(1 / (cluster.mtbf_h * 3600))
        if missing:
            first = now + (cluster.start_s if fresh else 0.0)
            heapq.heappush(
                events, (first + sizes[missing[0]] * cluster.frame_s * speed[worker], worker, missing[0], now)
            )

    for worker in range(cluster.workers):
        begin(worker, 0.0, fresh=True)
    while events:
        now, worker, file, began = heapq.heappop(events)
        if file is None:
            begin(worker, now, fresh=True)
        elif dies[worker] < now:  # before this shard was whole: it has no name yet, nobody will take it for finished
            failures += 1
            busy += dies[worker] - began
            computing = dies[worker] - (now - sizes[file] * cluster.frame_s * speed[worker])
            lost += max(0.0, computing) / (cluster.frame_s * speed[worker])
            heapq.heappush(events, (dies[worker] + cluster.wait_s, worker, None, 0.0))
        else:
            ledger[file] += 1
            busy += now - began
            ended = max(ended, now)
            begin(worker, now, fresh=False)
    return Outcome(ended / 3600, busy / 3600, int(failures), int(lost), ledger)


def predict(images: ShardManifest, cluster: Cluster) -> tuple[float, float]:
    """Return hours of the array and GPU hours by arithmetic alone, for comparison.

    A failure costs half a shard and a start, and to the clock the wait besides; the array ends with the slowest of its
    jobs, whose speed lies as far out as the largest of that many normal numbers.
    """
    entries = images.splits["train"]
    shard_s = max(entry.samples for entry in entries) * cluster.frame_s
    mean_s = sum(entry.samples for entry in entries) * cluster.frame_s / cluster.workers
    faults = mean_s / (cluster.mtbf_h * 3600)
    gpu_s = mean_s * math.exp(cluster.spread**2 / 2) + cluster.start_s + faults * (shard_s / 2 + cluster.start_s)
    most = math.ceil(len(entries) / cluster.workers) * shard_s  # the job with most shards
    slowest = most * math.exp(cluster.spread * statistics.NormalDist().inv_cdf(1 - 0.5 / cluster.workers))
    worst = _most(faults, cluster.workers)  # the job with most failures
    clock_s = slowest + cluster.start_s + worst * (shard_s / 2 + cluster.start_s + cluster.wait_s)
    return clock_s / 3600, gpu_s * cluster.workers / 3600


def _most(mean: float, workers: int) -> int:
    """Return how many failures the unluckiest of so many jobs may expect: a Poisson quantile."""
    number, term = 0, math.exp(-mean)
    total = term
    while total < 1 - 0.5 / workers:
        number += 1
        term *= mean / number
        total += term
    return number


def print_storage(frames: int) -> None:
    """Print the size of the cache by codec, and what training reads and what its loader computes."""
    print(f"images    {frames * JPEG_BYTES / 1e12:.2f} TB")
    rate = 125e12 / (2 * TRAIN_MACS)
    print(f"training  {rate:.0f} frames per second and GPU at 125 TFLOP/s")
    print("codec     cache TB  read GB/s and GPU  cores and GPU to load")
    for name, (part, decode_s) in CODECS.items():
        size = MAP_BYTES * part
        read = rate * (size + JPEG_BYTES) / 1e9
        print(f"{name:<9} {frames * size / 1e12:<9.2f} {read:<18.2f} {rate * (decode_s + LOAD_S):.1f}")


def print_compute(frames: int, val_frames: int) -> None:
    """Print GPU hours at the rates that are assumed."""
    print("work                   TFLOP a frame  GPU hours at 11.7 TFLOP/s (float32)  at 125 TFLOP/s (bfloat16)")
    works = [("teacher, once", TRUNK_MACS, frames), ("student, an epoch", TRAIN_MACS, frames)]
    for name, macs, seen in [*works, (f"student, {val_frames:,} val", VAL_MACS, val_frames)]:
        flop = 2 * macs
        float32_h, bfloat16_h = (seen * flop / rate / 3600 for rate in (11.7e12, 125e12))
        print(f"{name:<22} {flop / 1e12:<14.3f} {float32_h:<36.0f} {bfloat16_h:.1f}")


def main(words: Sequence[str] | None = None) -> int:
    """Print everything; exit code 1 where a shard was lost or made twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3_429_000)
    parser.add_argument("--val-frames", type=int, default=298_000, help="of one validation")
    parser.add_argument("--per-shard", type=int, nargs="+", default=[128, 512, 1024])
    parser.add_argument("--workers", type=int, default=512)
    parser.add_argument("--mtbf-hours", type=float, nargs="+", default=[8.0, 1.0])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    print_storage(given.frames)
    print()
    print_compute(given.frames, given.val_frames)
    print("\nframes     shards  mtbf h  failures  lost %  hours: simulated, arithmetic  GPU h: simulated, arithmetic")
    good = True
    for per_shard in given.per_shard:
        images = archive(given.frames, per_shard)
        for mtbf_h in given.mtbf_hours:
            cluster = Cluster(workers=given.workers, mtbf_h=mtbf_h)
            found = simulate(images, cluster, given.seed)
            clock_h, gpu_h = predict(images, cluster)
            files = {entry.file for entry in images.splits["train"]}
            good &= set(found.commits) == files and set(found.commits.values()) == {1}
            print(
                f"{per_shard:<10} {len(files):<7} {mtbf_h:<7g} {found.failures:<9} "
                f"{100 * found.lost_frames / given.frames:<7.2f} {found.hours:<10.2f} {clock_h:<18.2f} "
                f"{found.gpu_hours:<13.0f} {gpu_h:.0f}"
            )
    print("\nevery shard was finished once, no frame is missing" if good else "\na shard was LOST or made TWICE")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
