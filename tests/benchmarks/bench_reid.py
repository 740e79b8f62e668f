"""The pool and its gallery at the size of a year: bytes, commits, opening, the best match against a matrix product.

The start of `track` on a pool of that size too: until it can ask, until it has named the first animal. What a frame
costs when years of short tracks lie behind it.
"""

import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

from pl_distill.models.embedder_load import load_embedder
from pl_distill.monitor_sinks import open_pool
from pl_distill.reid.gallery import SightingsGallery
from pl_distill.reid.identifier import Identifier
from pl_distill.reid.identify_policy import IdentifierPolicy
from pl_distill.reid.identities import new_name
from pl_distill.reid.matching import MatchPolicy
from pl_distill.reid.pen_map import PenMap
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.samples import Sample
from pl_distill.reid.sampling import SamplingPolicy
from pl_distill.reid.storage import Storage, Vectors, decode, encode, normalised
from tests.benchmarks.measure import Figure, median_ms, ratio_of_times

DIMENSION = 384
QUERY_GOAL = "<= 1.2"


def measure() -> Iterator[Figure]:
    """Measure queries on both galleries, a pool of one animal and year as it grows, and the start on eight of them."""
    rng = np.random.default_rng(0)
    for name, animals, each, dimension in (("full_archive", 8, 61_320, 128), ("bounded", 200, 512, DIMENSION)):
        yield from _queries(rng, name, animals, each, dimension)
    yield from _store(rng)
    yield from track_start(rng)
    yield from many_tracks(rng)
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


def track_start(rng: np.random.Generator, each: int = 61_320, animals: int = 8) -> Iterator[Figure]:
    """Open pools of a hundredth and of all vectors as `track` does: embeddings of the shipped embedder's length.

    Args:
        rng: Draws the vectors: around one look an animal, so that they can be told apart.
        each: Vectors of an animal in the full pool.
        animals: How many.
    """
    embedder, policy = load_embedder(), IdentifierPolicy(match=MatchPolicy(threshold=0.5, margin=0.2))
    looks = normalised(rng.standard_normal((animals, embedder.dimension), dtype=np.float32))
    starts, matches, queries = [], [], []
    for vectors in (each // 100, each):
        with tempfile.TemporaryDirectory() as folder:  # a pool each: both have as many tracks
            with EmbeddingPool(folder, embedder.identity, embedder.dimension) as pool:
                tracks = np.array([pool.add_track("cam", "s", one, f"sow-{one}") for one in range(animals)])
                for done in range(0, vectors, 8000):
                    number = min(8000, vectors - done)
                    times_s = np.repeat((done + np.arange(number)) * pool.sampling.slot_s, animals)
                    with pool.transaction():
                        pool.append_arrays(np.tile(tracks, number), times_s, _seen(rng, np.tile(looks, (number, 1))))
            begin = time.perf_counter()
            began = datetime(2026, 1, 1, tzinfo=UTC)
            with open_pool(Path(folder), embedder, None, "cam", began, PenMap(), policy) as sink:
                starts.append(1000 * (time.perf_counter() - begin))
                matches.append(_first_match_ms(rng, sink.identifier, looks, policy.evidence))
                queries.append(_query_ms(sink.identifier, looks))
    yield Figure("reid.track_start_ms", starts[1], "ms")
    yield Figure("reid.track_start_full_over_hundredth", starts[1] / starts[0], "ratio")
    yield Figure("reid.track_first_match_ms", matches[1], "ms")
    yield Figure("reid.track_query_ms", queries[1], "ms")
    yield Figure("reid.track_query_full_over_hundredth", queries[1] / queries[0], "ratio", "<= 1.5")


def many_tracks(rng: np.random.Generator, tracks: int = 200_000, animals: int = 8) -> Iterator[Figure]:
    """Ask pools of a hundredth and of all tracks, each linked by an event, as a frame with a track in doubt does.

    Args:
        rng: Draws the vectors.
        tracks: In the full pool.
        animals: How many.
    """
    looks = normalised(rng.standard_normal((animals, DIMENSION), dtype=np.float32))
    policy = IdentifierPolicy(match=MatchPolicy(threshold=0.5, margin=0.2))
    queries, names = [], []
    for number in (tracks // 100, tracks):
        with tempfile.TemporaryDirectory() as folder:
            with EmbeddingPool(folder, "a" * 64, DIMENSION) as pool, pool.transaction() as connection:
                own = np.array([pool.add_track("cam", "now", one, f"sow-{one}") for one in range(animals)])
                pool.append_arrays(own, np.zeros(animals), looks)
                connection.execute(
                    f"INSERT INTO tracks SELECT {animals} + i, 'cam', 'past', i, 'sow-' || i % {animals} "
                    f"FROM range({number}) p(i)"
                )
                detail = """'{"reason": "", "before": {"' || i || '": ""}, "after": {"' || i || '": "animal-0001"}}'"""
                connection.execute(
                    f"INSERT INTO events SELECT i, now()::TIMESTAMP, 'link', {detail}, false FROM range({number}) p(i)"
                )
            with EmbeddingPool(folder) as pool, Identifier(pool, "cam", "now", policy) as identifier:
                queries.append(_query_ms(identifier, looks))
                names.append(median_ms(lambda pool=pool: [new_name(pool) for _ in range(100)], rounds=50) / 100)
    yield Figure("reid.query_of_100_times_the_tracks_over_one", queries[1] / queries[0], "ratio", "<= 1.5")
    yield Figure("reid.new_name_of_100_times_the_tracks_over_one", names[1] / names[0], "ratio", "<= 1.5")


def _first_match_ms(rng: np.random.Generator, identifier: Identifier, looks: Vectors, evidence: int) -> float:
    """Median time of the frame in which a new track gets its name, over one track an animal; the link is committed."""
    times = []
    for number, look in enumerate(looks):
        for frame in range(evidence):
            vector = _seen(rng, look[None])
            begin = time.perf_counter()
            named = identifier.observe(5e8 + 100 * number + frame, [number], vector)
            times.append(time.perf_counter() - begin)
        assert named == {number: f"sow-{number}"}
    return 1000 * median(times[evidence - 1 :: evidence])


def _query_ms(identifier: Identifier, looks: Vectors) -> float:
    """Median time of a frame with a track between two animals: it stays in doubt, so that nothing is written."""
    doubt, number, seconds = normalised(1.05 * looks[:1] + looks[1:2]), len(looks), iter(range(10_000))
    taken = median_ms(lambda: identifier.observe(1e9 + next(seconds), [number], doubt), rounds=300)
    assert identifier.animal_of(number) is None
    return taken


def _seen(rng: np.random.Generator, looks: Vectors) -> Vectors:
    """Draw what animals of these looks (N, D) show: cosines of some 0.9 with them."""
    noise = rng.standard_normal(looks.shape, dtype=np.float32)
    return normalised(looks + 0.5 / looks.shape[1] ** 0.5 * noise)


def _int8(rng: np.random.Generator) -> Iterator[Figure]:
    vectors = normalised(rng.standard_normal((4000, DIMENSION), dtype=np.float32))
    storages: tuple[Storage, ...] = ("float16", "int8")
    for storage in storages:
        cosine = (decode(*encode(vectors, storage), storage) * vectors).sum(1)
        degrees = float(np.degrees(np.arccos(cosine.min().clip(-1, 1))))
        yield Figure(f"reid.{storage}_turns_a_vector_by_at_most", degrees, "degrees")
