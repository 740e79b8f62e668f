"""Judge stores for the pool: ``pip install lancedb sqlite-vec apsw usearch``, ``python -m tests.benchmarks.stores``.

Each gets the same unit vectors of eight animals: most in bulk, then one row an animal in a commit of its own, as a
tracker writes. Reported: bytes a vector on disk, time of a commit early and late, of opening, of the best match of one
query, of deleting an animal, bytes after it. A package that is not installed is passed over. arm64 wheels and licences
do not need running: they are in docs/animal-record.md.
"""

import argparse
import importlib.util
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from datamodules.files import write_json
from pl_distill.reid.gallery import SightingsGallery
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.storage import normalised

ANIMALS = 8


class Pool:
    """Ours: blobs in DuckDB with small groups of rows; queries are a matrix product over the loaded vectors."""

    name, needs = "DuckDB, our layout", ()

    def __init__(self, folder: Path, dimension: int) -> None:
        self.pool = EmbeddingPool(folder / "pool", "a" * 64, dimension)
        self.tracks = np.array([self.pool.add_track("cam", "s", n, f"{n}") for n in range(ANIMALS)])
        self.gallery: SightingsGallery | None = None

    def add(self, ids: Any, vectors: Any) -> None:
        self.pool.append_arrays(self.tracks[ids % ANIMALS], ids.astype(float), vectors)

    def query(self, vector: Any) -> None:
        if self.gallery is None:
            stored = self.pool.vectors()
            self.gallery = SightingsGallery.of(stored.animals, stored.times_s, stored.vectors)
        self.gallery.scores(vector[None]).argmax()

    def delete(self, ids: Any) -> None:
        self.pool.delete(ids)
        self.pool.compact()

    def close(self) -> None:
        self.pool.close()


class DuckArrays:
    """FLOAT[D] columns and array_inner_product, DuckDB's own layout."""

    name, needs = "DuckDB, FLOAT[D]", ()

    def __init__(self, folder: Path, dimension: int) -> None:
        self.dimension, self.connection = dimension, duckdb.connect(folder / "v.duckdb", config={"threads": 1})
        self.connection.execute(f"CREATE TABLE IF NOT EXISTS v(id BIGINT, animal INTEGER, e FLOAT[{dimension}])")

    def add(self, ids: Any, vectors: Any) -> None:
        self.connection.register("n", _table(ids, vectors, "e"))
        self.connection.execute("INSERT INTO v SELECT * FROM n")

    def query(self, vector: Any) -> None:
        self.connection.execute(
            f"SELECT id FROM v ORDER BY array_inner_product(e, ?::FLOAT[{self.dimension}]) DESC LIMIT 1", [vector]
        ).fetchall()

    def delete(self, ids: Any) -> None:
        self.connection.execute("DELETE FROM v WHERE animal = 0")
        self.connection.execute("CHECKPOINT")

    def close(self) -> None:
        self.connection.close()


class Lance:
    """A Lance table, brute-force search, compacted every 250 commits and at the end."""

    name, needs = "LanceDB", ("lancedb",)

    def __init__(self, folder: Path, dimension: int) -> None:
        import lancedb

        self.database = lancedb.connect(str(folder / "lance"))
        self.table = self.database.open_table("v") if "v" in self.database.table_names() else None
        self.commits = 0

    def add(self, ids: Any, vectors: Any) -> None:
        table = _table(ids, vectors, "vector")
        if self.table is None:
            self.table = self.database.create_table("v", table)
            return
        self.table.add(table)
        self.commits += 1
        if self.commits % 250 == 0:
            self.table.optimize(cleanup_older_than=timedelta(0))

    def query(self, vector: Any) -> None:
        self.table.search(vector).metric("dot").limit(1).to_arrow()

    def delete(self, ids: Any) -> None:
        self.table.delete("animal = 0")
        self.table.optimize(cleanup_older_than=timedelta(0))

    def close(self) -> None:
        self.table.optimize(cleanup_older_than=timedelta(0))


class SqliteVec:
    """A vec0 table through apsw: CPython's sqlite3 may be built without extensions."""

    name, needs = "sqlite-vec", ("sqlite_vec", "apsw")

    def __init__(self, folder: Path, dimension: int) -> None:
        import apsw
        import sqlite_vec

        self.connection = apsw.Connection(str(folder / "v.sqlite"))
        self.connection.enable_load_extension(True)
        self.connection.load_extension(sqlite_vec.loadable_path())
        self.connection.execute("PRAGMA journal_mode=wal")
        self.connection.execute("PRAGMA synchronous=full")
        self.connection.execute(
            f"CREATE VIRTUAL TABLE IF NOT EXISTS v USING vec0(animal INTEGER, e FLOAT[{dimension}])"
        )

    def add(self, ids: Any, vectors: Any) -> None:
        rows = [(int(i), int(i) % ANIMALS, vector.tobytes()) for i, vector in zip(ids, vectors, strict=True)]
        with self.connection:
            self.connection.executemany("INSERT INTO v(rowid, animal, e) VALUES (?, ?, ?)", rows)

    def query(self, vector: Any) -> None:
        list(self.connection.execute("SELECT rowid FROM v WHERE e MATCH ? AND k = 1", (vector.tobytes(),)))

    def delete(self, ids: Any) -> None:
        with self.connection:
            self.connection.execute("DELETE FROM v WHERE animal = 0")
        self.connection.execute("VACUUM")

    def close(self) -> None:
        list(self.connection.execute("PRAGMA wal_checkpoint(truncate)"))
        self.connection.close()


class Usearch:
    """An HNSW index that is saved whole: it has no commits, so that a row means writing everything."""

    name, needs = "usearch", ("usearch",)

    def __init__(self, folder: Path, dimension: int) -> None:
        from usearch.index import Index

        self.path = folder / "v.usearch"
        self.index = (
            Index.restore(str(self.path)) if self.path.exists() else Index(ndim=dimension, metric="ip", dtype="f32")
        )

    def add(self, ids: Any, vectors: Any) -> None:
        self.index.add(ids, vectors, threads=1)
        self.index.save(str(self.path))

    def query(self, vector: Any) -> None:
        self.index.search(vector, 1)

    def delete(self, ids: Any) -> None:
        self.index.remove(ids)
        self.index.save(str(self.path))

    def close(self) -> None:
        self.index.save(str(self.path))


STORES = (Pool, DuckArrays, Lance, SqliteVec, Usearch)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=61_320, help="as many as the paper's animal and year")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--commits", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("runs/stores.json"))
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    vectors = normalised(rng.standard_normal((options.vectors, options.dimension)).astype(np.float32))
    query = vectors[options.vectors // 2]
    product = _median_ms(lambda: (vectors @ query).argmax())
    print(f"sqlite3 of this Python loads extensions: {hasattr(sqlite3.Connection, 'enable_load_extension')}")
    print(f"exact matrix product: {product:.1f} ms a query\n")
    head = ("store", "B/vector", "commit ms", "late ms", "open ms", "query ms", "delete ms", "B/vector after")
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    results: dict[str, Any] = {"product_ms": product}
    for store in STORES:
        if missing := [name for name in store.needs if importlib.util.find_spec(name) is None]:
            print(f"| {store.name} | not installed: {', '.join(missing)} |")
            continue
        results[store.name] = row = _measure(store, vectors, query, options.commits)
        print(f"| {store.name} | " + " | ".join(f"{value:,.1f}" for value in row.values()) + " |", flush=True)
    write_json(options.out, {"schema": 1, **vars(options), "out": str(options.out), "results": results})


def _measure(store: Any, vectors: Any, query: Any, commits: int) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="stores-"))
    try:
        opened = store(folder, vectors.shape[1])
        slow = store is Usearch  # every save writes everything: a few tell enough, and the index takes minutes to build
        number = 6_000 if slow else len(vectors)
        commits = 5 if slow else commits
        bulk = number - ANIMALS * commits
        for start in range(0, bulk, 5000):
            ids = np.arange(start, min(start + 5000, bulk))
            opened.add(ids, vectors[ids])
        times = []
        for start in range(bulk, number, ANIMALS):
            ids = np.arange(start, start + ANIMALS)
            times.append(_ms(lambda ids=ids: opened.add(ids, vectors[ids])))
        opened.close()
        size = _bytes(folder) / number
        begin = time.perf_counter()
        opened = store(folder, vectors.shape[1])
        opening = 1000 * (time.perf_counter() - begin)
        asked = _median_ms(lambda: opened.query(query))
        deleting = _ms(lambda: opened.delete(np.arange(0, number, ANIMALS)))
        opened.close()
        tenth = max(1, len(times) // 10)
        early, late = float(np.median(times[:tenth])), float(np.median(times[-tenth:]))
        after = _bytes(folder) / number
        return {
            "bytes": size, "commit_ms": early, "late_ms": late, "open_ms": opening, "query_ms": asked,
            "delete_ms": deleting, "bytes_after": after,
        }  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _table(ids: Any, vectors: Any, name: str) -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return pa.table({"id": ids, "animal": (ids % ANIMALS).astype(np.int32), name: column})


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _ms(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - begin)


def _median_ms(action: Callable[[], object]) -> float:
    action()
    return float(np.median([_ms(action) for _ in range(7)]))


if __name__ == "__main__":
    main()
