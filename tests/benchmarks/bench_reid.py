"""The pool and its gallery at the size of a year: bytes, commits, opening, the best match against a matrix product."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pl_distill.reid.gallery import SightingsGallery
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.samples import Sample
from pl_distill.reid.sampling import SamplingPolicy
from pl_distill.reid.storage import Storage, decode, encode, normalised
from tests.benchmarks.measure import Figure, median_ms, ratio_of_times

DIMENSION = 384
QUERY_GOAL = "<= 1.2"


def measure() -> Iterator[Figure]:
    """Measure queries on both galleries, and a pool of one animal and year as it grows."""
    rng = np.random.default_rng(0)
    for name, animals, each, dimension in (("full_archive", 8, 61_320, 128), ("bounded", 200, 512, DIMENSION)):
        yield from _queries(rng, name, animals, each, dimension)
    yield from _store(rng)
    yield from _int8(rng)


def _queries(rng: np.random.Generator, name: str, animals: int, each: int, dimension: int) -> Iterator[Figure]:
    vectors = normalised(rng.standard_normal((animals * each, dimension), dtype=np.float32))
    times = np.tile(np.arange(each) * 514.0, animals)
    gallery = SightingsGallery.of(np.repeat([f"{n:03d}" for n in range(animals)], each), times, vectors, 0.001)
    for queries in (1, 8):
        asked = vectors[rng.integers(len(vectors), size=queries)]
        ratio = ratio_of_times(
            lambda asked=asked: gallery.scores(asked).argmax(1), lambda asked=asked: asked @ vectors.T, rounds=15
        )
        yield Figure(f"reid.{name}_{queries}_queries_over_product", ratio, "ratio", QUERY_GOAL)


def _store(rng: np.random.Generator) -> Iterator[Figure]:
    sampling = SamplingPolicy()
    rows = sampling.per_hour * 24 * 365
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool"
        opening, committing = [], []
        done = 0
        for part in (rows // 100, rows):
            with EmbeddingPool(path, "a" * 64, DIMENSION, sampling) as pool:
                track = pool.add_track("cam", "s", 1, "rosa")
                while done < part:
                    number = min(4000, part - done)
                    vectors = normalised(rng.standard_normal((number, DIMENSION), dtype=np.float32))
                    pool.append_arrays(np.full(number, track), (done + np.arange(number)) * sampling.slot_s, vectors)
                    done += number
                committing.append(_commit_ms(pool, rng))
                size = pool.bytes_per_animal_year() / sampling.budget_bytes(DIMENSION)
            opening.append(median_ms(lambda: EmbeddingPool(path).close(), rounds=7))
    yield Figure("reid.bytes_per_animal_year_over_budget", size, "ratio", "<= 1.05")
    yield Figure("reid.commit_ms", committing[1], "ms")
    yield Figure("reid.commit_full_over_hundredth", committing[1] / committing[0], "ratio", "<= 1.5")
    yield Figure("reid.open_ms", opening[1], "ms")
    yield Figure("reid.open_full_over_hundredth", opening[1] / opening[0], "ratio", "<= 1.5")


def _commit_ms(pool: EmbeddingPool, rng: np.random.Generator) -> float:
    """Time of one embedding in a commit of its own, synced."""
    vector = normalised(rng.standard_normal((1, DIMENSION), dtype=np.float32))[0]
    seconds = iter(range(10_000))
    return median_ms(lambda: pool.append([Sample("cam", "s", 1, 4e7 + next(seconds), vector)]), rounds=40)


def _int8(rng: np.random.Generator) -> Iterator[Figure]:
    vectors = normalised(rng.standard_normal((4000, DIMENSION), dtype=np.float32))
    storages: tuple[Storage, ...] = ("float16", "int8")
    for storage in storages:
        cosine = (decode(*encode(vectors, storage), storage) * vectors).sum(1)
        degrees = float(np.degrees(np.arccos(cosine.min().clip(-1, 1))))
        yield Figure(f"reid.{storage}_turns_a_vector_by_at_most", degrees, "degrees")
