"""The pool: embeddings of every animal, on disk, in a budget, for years.

One DuckDB file. Why DuckDB and not LanceDB, sqlite-vec or usearch is measured by ``python -m tests.benchmarks.stores``
and told in docs/animal-record.md. A commit is synced before `offer` returns: a kill loses at most the call that ran.

An embedding belongs to a track (camera, session, the tracker's number), and a track to an animal. Merging and splitting
animals moves tracks only, is written down, and can be undone; see `identities`.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamodules.errors import DataError
from pl_distill.reid.storage import BYTES_PER_VALUE, NUMPY_TYPE, Storage, Vectors, decode, encode

POOL_FILE = "pool.duckdb"
SCHEMA = 1
UNKNOWN = ""
"""Animal of a track that nobody has recognised yet."""

_SECONDS_PER_YEAR = 365 * 24 * 3600
_UNIT_TOLERANCE = 1e-2
_MOST_ROWS = 2000  # of a commit: DuckDB writes a whole group of rows at once, and again when the next rows join it
_LAYOUT = "ROW_GROUP_SIZE 4096, BLOCK_SIZE 65536"
"""A checkpoint rewrites the last group of rows: with DuckDB's own 122,880 a file of rows this wide doubles as it grows.
Blocks of 64 kB leave the least slack: 1 to 3 % around vectors of 384 values, 16 kB up to 9 %, DuckDB's own 3 to 4 %."""


class PoolError(DataError):
    """A pool is absent, damaged, in use, or of another embedder."""


@dataclass(frozen=True)
class SamplingPolicy:
    """Which embeddings are kept.

    An hour has `per_hour` slots of equal length; of each slot the first embedding that is good enough is kept.
    The defaults are the paper's 94 MB for an animal and year: 7 * 24 * 365 vectors of 384 float32 values.

    Args:
        per_hour: Embeddings of one animal in an hour.
        storage: float32, float16 (half the bytes) or int8 (a quarter; the loss is in docs/animal-record.md).
        min_quality: Embeddings of crops below this are not kept, 0 to 1.
    """

    per_hour: int = 7
    storage: Storage = "float32"
    min_quality: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.per_hour <= 3600:
            raise PoolError("sampling.per_hour", f"is {self.per_hour}", "1 to 3600", "Choose another value.")
        if self.storage not in BYTES_PER_VALUE:
            raise PoolError(
                "sampling.storage", f"is {self.storage!r}", " or ".join(BYTES_PER_VALUE), "Correct the spelling."
            )

    @property
    def slot_s(self) -> float:
        """Length of a slot in seconds."""
        return 3600 / self.per_hour

    def slot_of(self, time_s: float) -> int:
        """Number of the slot that a time lies in, from 1970 on; in whole milliseconds, for exact borders."""
        return round(time_s * 1000) * self.per_hour // 3_600_000

    def budget_bytes(self, dimension: int) -> int:
        """Bytes of one animal's vectors in a year of 365 days, without anything around them."""
        return round(self.per_hour * _SECONDS_PER_YEAR / 3600 * dimension * BYTES_PER_VALUE[self.storage])


@dataclass(frozen=True)
class Sample:
    """One embedding with where it comes from.

    Args:
        camera: Name of the camera; the same track number of two cameras is two tracks.
        session: Name of the tracker's run: numbers start anew in each.
        number: The tracker's number.
        time_s: Seconds since 1970 (UTC).
        vector: (D,), unit length.
        quality: How good the crop is, 0 to 1.
    """

    camera: str
    session: str
    number: int
    time_s: float
    vector: Vectors
    quality: float = 1.0


@dataclass(frozen=True)
class Stored:
    """Vectors of a pool, the oldest first within each animal.

    Args:
        ids: (N,), numbers of the rows.
        animals: (N,), names.
        times_s: (N,), seconds since 1970 (UTC).
        vectors: (N, D), float32, unit length.
    """

    ids: NDArray[np.int64]
    animals: NDArray[np.str_]
    times_s: NDArray[np.float64]
    vectors: Vectors


class EmbeddingPool:
    """A store of embeddings that outlives the process. Use it as a context manager, or close it.

    Args:
        path: Its folder; made if `embedder` is given and it does not exist.
        embedder: Identity (SHA-256) of the network that makes the embeddings; None reads whatever is there.
        dimension: Length of an embedding; None as for `embedder`.
        sampling: Which embeddings are kept; a pool that exists keeps its storage, and refuses another.
        read_only: Whether nothing will be written.

    Raises:
        PoolError: There is no pool, it is damaged, in use, or of another embedder, dimension or storage.
    """

    def __init__(
        self,
        path: str | Path,
        embedder: str | None = None,
        dimension: int | None = None,
        sampling: SamplingPolicy | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self.path = Path(path)
        self._file = self.path / POOL_FILE
        is_new = not self._file.exists()
        if is_new and (embedder is None or dimension is None or read_only):
            raise PoolError(self.path, "holds no pool", POOL_FILE, "Name the folder given to `track --pool`.")
        if not is_new:
            _check_length(self._file)
        self.path.mkdir(parents=True, exist_ok=True)
        self._connection = _connect(self._file, read_only)
        try:
            if is_new:
                assert embedder is not None
                assert dimension is not None
                self._create(embedder, dimension, sampling or SamplingPolicy())
            self._read_meta(embedder, dimension, sampling)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> "EmbeddingPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the log into the file and let go of it."""
        self._connection.close()

    # --- writing -----------------------------------------------------------------------------------------------------

    def offer(self, samples: Sequence[Sample]) -> list[bool]:
        """Keep what the policy wants to keep of these, in one commit.

        Returns:
            For each sample, whether it was kept.
        """
        kept, slots = [], dict(self._last_slot)
        for sample in samples:
            animal = self._owner_of(sample)
            slot = self.sampling.slot_of(sample.time_s)
            good = sample.quality >= self.sampling.min_quality and slots.get(animal, -1) < slot
            if good:
                slots[animal] = slot
            kept.append(good)
        self.append([sample for sample, is_kept in zip(samples, kept, strict=True) if is_kept])
        return kept

    def append(self, samples: Sequence[Sample]) -> None:
        """Keep all of these, in one commit.

        Raises:
            PoolError: A vector has another dimension, is not finite, or not of unit length.
        """
        if not samples:
            return
        for sample in samples:
            self._check_vector(sample)
        with self.transaction():
            tracks = [self._track_of(sample) for sample in samples]
            self.append_arrays(
                np.array(tracks), np.array([sample.time_s for sample in samples]),
                np.stack([sample.vector for sample in samples]), np.array([sample.quality for sample in samples]),
            )  # fmt: skip
        for sample in samples:
            self._note_slot(self._owner_of(sample), sample.time_s)

    def append_arrays(
        self,
        tracks: NDArray[np.int64],
        times_s: NDArray[np.float64],
        vectors: Vectors,
        quality: NDArray[np.float64] | None = None,
    ) -> None:
        """Keep many embeddings of tracks that exist: (N,), (N,), (N, D), (N,); every 2,000 rows are a commit."""
        if len(tracks) > _MOST_ROWS:
            for start in range(0, len(tracks), _MOST_ROWS):
                part = slice(start, start + _MOST_ROWS)
                some = None if quality is None else quality[part]
                self.append_arrays(tracks[part], times_s[part], vectors[part], some)
            return
        stored, scale = encode(vectors, self.sampling.storage)
        number = len(tracks)
        quality = np.ones(number) if quality is None else quality
        columns: dict[str, Any] = {
            "id": self._next_id + np.arange(number),
            "track": tracks.astype(np.int32),
            "time": (np.rint(times_s * 1e3).astype(np.int64)).astype("datetime64[ms]"),
            "quality": np.rint(100 * np.clip(quality, 0, 1)).astype(np.uint8),
            "vector": _binary(stored),
        }
        if self.sampling.storage == "int8":
            columns["scale"] = scale
        table = pa.table(columns)
        self._connection.register("new_rows", table)
        try:
            self._connection.execute("INSERT INTO vectors SELECT * FROM new_rows")
        finally:
            self._connection.unregister("new_rows")
        self._next_id += number

    def add_track(self, camera: str, session: str, number: int, animal: str = UNKNOWN) -> int:
        """Make a track, or give the number of the one that exists (its animal stays)."""
        key = (camera, session, number)
        if key not in self._tracks:
            track = len(self._tracks)
            self._connection.execute("INSERT INTO tracks VALUES (?, ?, ?, ?, ?)", [track, *key, animal])
            self._tracks[key], self._animal_of[track] = track, animal
        return self._tracks[key]

    def assign(self, tracks: Iterable[int], animal: str) -> None:
        """Say whose these tracks are. `identities` does it with a line in the log."""
        for track in tracks:
            self._connection.execute("UPDATE tracks SET animal = ? WHERE track = ?", [animal, track])
            self._animal_of[track] = animal
            filled = self._last_slot.get(f"track {track}", -1)
            if animal != UNKNOWN and filled > self._last_slot.get(animal, -1):
                self._last_slot[animal] = filled

    def delete(self, ids: NDArray[np.int64]) -> int:
        """Delete rows for good; `thin` decides which may go. The file shrinks with `compact`."""
        self._connection.register("old_rows", pa.table({"id": ids}))
        try:
            with self.transaction():
                self._connection.execute("DELETE FROM vectors WHERE id IN (SELECT id FROM old_rows)")
        finally:
            self._connection.unregister("old_rows")
        return len(ids)

    def thin(self, animal: str, keep: int, replaceable: float = 0.9) -> int:
        """Delete an animal's oldest vectors beyond `keep`, but none that the others cannot replace.

        Args:
            animal: Its name.
            keep: How many to keep at least.
            replaceable: A vector may go if one that stays has at least this cosine with it.

        Returns:
            How many went; fewer than wished where the looks of the animal would be lost.
        """
        stored = self.vectors([animal])
        excess = len(stored.ids) - max(keep, 1)
        if excess <= 0:
            return 0
        stays = np.ones(len(stored.ids), bool)
        for row in range(len(stored.ids)):
            if excess == 0:
                break
            stays[row] = False
            if (stored.vectors[stays] @ stored.vectors[row]).max() < replaceable:
                stays[row] = True
            else:
                excess -= 1
        return self.delete(stored.ids[~stays])

    def compact(self) -> None:
        """Write the file anew without what was deleted: beside the old one first, then in its place."""
        temporary = self._file.with_name(f".{POOL_FILE}.partial-{os.getpid()}")
        temporary.unlink(missing_ok=True)
        try:
            self._connection.execute(f"ATTACH '{_quoted(temporary)}' AS compacted ({_LAYOUT})")
            for table in ("meta", "tracks", "events", "vectors"):
                order = " ORDER BY id" if table == "vectors" else ""
                self._connection.execute(f"CREATE TABLE compacted.{table} AS SELECT * FROM {table}{order}")
            self._connection.execute("DETACH compacted")
            self._connection.close()
            temporary.replace(self._file)
        finally:
            temporary.unlink(missing_ok=True)
            self._connection = _connect(self._file, read_only=False)

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """All or nothing; a transaction inside another is part of it."""
        if self._depth:
            yield self._connection
            return
        self._depth += 1
        self._connection.begin()
        try:
            yield self._connection
            self._connection.commit()
        except BaseException:
            self._connection.rollback()
            self._read_tracks()
            raise
        finally:
            self._depth -= 1

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def animals(self) -> list[str]:
        """Names of the animals that have a track."""
        return sorted({animal for animal in self._animal_of.values() if animal != UNKNOWN})

    def tracks_of(self, animal: str) -> list[int]:
        """Numbers of an animal's tracks."""
        return sorted(track for track, name in self._animal_of.items() if name == animal)

    def animal_of(self, track: int) -> str:
        """Name of the animal that a track belongs to; `UNKNOWN` where nobody has said so."""
        return self._animal_of[track]

    def find_track(self, camera: str, session: str, number: int) -> int | None:
        """Number of the track that the tracker calls `number`; None if it has left nothing here."""
        return self._tracks.get((camera, session, number))

    def track_names(self) -> dict[int, tuple[str, str, int]]:
        """Track -> camera, session and the tracker's number."""
        return {track: key for key, track in self._tracks.items()}

    def count(self) -> dict[str, int]:
        """How many vectors each animal has."""
        rows = self._connection.execute(
            "SELECT animal, count(*) FROM vectors JOIN tracks USING (track) GROUP BY animal ORDER BY animal"
        ).fetchall()
        return {animal: int(number) for animal, number in rows}

    def vectors(
        self, animals: Sequence[str] | None = None, until_s: float | None = None, newest: int | None = None
    ) -> Stored:
        """Read vectors.

        Args:
            animals: Of whom; None: of all that are known.
            until_s: Only those before this time, in seconds since 1970 (UTC).
            newest: Only so many of each animal.
        """
        names = self.animals if animals is None else list(animals)
        scale = "scale" if self.sampling.storage == "int8" else "1::FLOAT AS scale"
        where = "list_contains(?, animal)" + ("" if until_s is None else " AND time < make_timestamp(?)")
        values: list[Any] = [names] + ([] if until_s is None else [round(until_s * 1e6)])
        rank = "row_number() OVER (PARTITION BY animal ORDER BY time DESC)"
        limit = "" if newest is None else f" QUALIFY {rank} <= {newest:d}"
        query = (
            f"SELECT id, animal, epoch_us(time) / 1e6 AS time_s, {scale}, vector FROM vectors "
            f"JOIN tracks USING (track) WHERE {where}{limit} ORDER BY animal, time, id"
        )
        table = self._guarded(lambda: self._connection.sql(query, params=values).to_arrow_table())
        return Stored(
            table["id"].to_numpy(),
            np.array(table["animal"].to_pylist(), dtype=np.str_),
            table["time_s"].to_numpy(),
            decode(self._values(table["vector"]), table["scale"].to_numpy(), self.sampling.storage),
        )

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the file itself, in SQL."""
        found: list[tuple[Any, ...]] = self._guarded(lambda: self._connection.execute(query).fetchall())
        return found

    def size_bytes(self) -> int:
        """Bytes of the pool on disk, everything included, after its log is written into the file."""
        self._connection.execute("CHECKPOINT")
        return sum(file.stat().st_size for file in self.path.iterdir() if file.name.startswith(POOL_FILE))

    def bytes_per_animal_year(self) -> float:
        """Measured bytes of the store for one animal and a year of sampling at the policy's full rate."""
        rows = sum(self.count().values())
        per_year = self.sampling.per_hour * _SECONDS_PER_YEAR / 3600
        return self.size_bytes() / max(rows, 1) * per_year

    # --- inside ------------------------------------------------------------------------------------------------------

    def _create(self, embedder: str, dimension: int, sampling: SamplingPolicy) -> None:
        scale = ", scale FLOAT" if sampling.storage == "int8" else ""
        execute = self._connection.execute
        self._connection.begin()
        execute("CREATE TABLE meta (key VARCHAR, value VARCHAR)")
        execute("CREATE TABLE tracks (track INTEGER, camera VARCHAR, session VARCHAR, number BIGINT, animal VARCHAR)")
        execute("CREATE TABLE events (event INTEGER, time TIMESTAMP, kind VARCHAR, detail VARCHAR, undone BOOLEAN)")
        execute(
            f"CREATE TABLE vectors (id BIGINT, track INTEGER, time TIMESTAMP, quality UTINYINT, vector BLOB{scale})"
        )
        content = {"schema": SCHEMA, "embedder": embedder, "dimension": dimension, **asdict(sampling)}
        for key, value in content.items():
            execute("INSERT INTO meta VALUES (?, ?)", [key, str(value)])
        self._connection.commit()
        execute("CHECKPOINT")

    def _read_meta(self, embedder: str | None, dimension: int | None, sampling: SamplingPolicy | None) -> None:
        try:
            meta = dict(self._connection.execute("SELECT key, value FROM meta").fetchall())
            found = SamplingPolicy(int(meta["per_hour"]), meta["storage"], float(meta["min_quality"]))
            self.embedder, self.dimension = str(meta["embedder"]), int(meta["dimension"])
        except (duckdb.Error, KeyError, ValueError) as error:
            raise PoolError(
                self._file, f"is no pool ({_first_line(error)})", "a file that a pool wrote", "Name another folder."
            ) from error
        if int(meta["schema"]) != SCHEMA:
            raise PoolError(self._file, f"has schema {meta['schema']}", str(SCHEMA), "Use the version that wrote it.")
        if embedder is not None and embedder != self.embedder:
            raise PoolError(
                self._file,
                f"holds embeddings of embedder {self.embedder[:16]}",
                f"{embedder[:16]}, the one that is loaded",
                "Load the one that filled it, or start another pool: embeddings of two networks cannot be compared.",
            )
        if dimension is not None and dimension != self.dimension:
            raise PoolError(
                self._file, f"holds embeddings of {self.dimension} values", f"{dimension}", "Start another pool."
            )
        if sampling is not None and sampling.storage != found.storage:
            raise PoolError(
                self._file, f"stores {found.storage}", f"{sampling.storage}", "Keep its storage, or start another pool."
            )
        self.sampling = sampling or found
        self._depth = 0
        newest = self._connection.execute("SELECT max(id) FROM vectors").fetchone()
        self._next_id = 0 if newest is None or newest[0] is None else int(newest[0]) + 1
        self._read_tracks()

    def _read_tracks(self) -> None:
        rows = self._connection.execute("SELECT track, camera, session, number, animal FROM tracks").fetchall()
        self._tracks = {(camera, session, int(number)): int(track) for track, camera, session, number, _ in rows}
        self._animal_of = {int(row[0]): str(row[4]) for row in rows}
        self._last_slot: dict[str, int] = {}
        for track, time_s in self._connection.execute(
            "SELECT track, epoch_us(max(time)) / 1e6 FROM vectors GROUP BY track"
        ).fetchall():
            animal = self._animal_of[int(track)]
            self._note_slot(animal if animal != UNKNOWN else f"track {track}", float(time_s))

    def _note_slot(self, animal: str, time_s: float) -> None:
        self._last_slot[animal] = max(self._last_slot.get(animal, -1), self.sampling.slot_of(time_s))

    def _owner_of(self, sample: Sample) -> str:
        """Whose slot a sample fills: the animal's, or while it is unknown the track's own."""
        key = (sample.camera, sample.session, sample.number)
        track = self._tracks.get(key)
        animal = UNKNOWN if track is None else self._animal_of[track]
        if animal != UNKNOWN:
            return animal
        return f"track {key}" if track is None else f"track {track}"

    def _track_of(self, sample: Sample) -> int:
        return self.add_track(sample.camera, sample.session, sample.number)

    def _check_vector(self, sample: Sample) -> None:
        where = f"embedding of track {sample.number}, camera '{sample.camera}'"
        vector = np.asarray(sample.vector)
        if vector.shape != (self.dimension,):
            raise PoolError(where, f"has shape {vector.shape}", f"({self.dimension},)", "Load this pool's embedder.")
        length = float(np.linalg.norm(vector))
        if not abs(length - 1) < _UNIT_TOLERANCE:  # also not a number
            raise PoolError(where, f"has length {length:.3g}", "1", "Normalise it; an empty crop has no embedding.")

    def _values(self, column: pa.ChunkedArray) -> NDArray[np.generic]:
        """What was stored, (N, D)."""
        kind = np.dtype(NUMPY_TYPE[self.sampling.storage])
        width = self.dimension * kind.itemsize
        parts = [np.empty((0, self.dimension), kind)]
        for chunk in column.chunks:
            rows = self._guarded(lambda chunk=chunk: chunk.cast(pa.binary(width)))
            flat = np.frombuffer(rows.buffers()[1], kind, len(rows) * self.dimension, rows.offset * width)
            parts.append(flat.reshape(-1, self.dimension))
        return parts[1] if len(parts) == 2 else np.concatenate(parts)

    def _guarded(self, read: Any) -> Any:
        try:
            return read()
        except (duckdb.Error, pa.ArrowException) as error:
            raise _damaged(self._file, error) from error


def _binary(stored: NDArray[np.generic]) -> pa.BinaryArray:
    """One blob a row, without a copy."""
    number, width = len(stored), stored.shape[1] * stored.itemsize
    offsets = (np.arange(number + 1) * width).astype(np.int32)
    rows = np.ascontiguousarray(stored)
    return pa.BinaryArray.from_buffers(pa.binary(), number, [None, pa.py_buffer(offsets), pa.py_buffer(rows)])


def _check_length(file: Path) -> None:
    if file.stat().st_size < 12288:  # DuckDB's three headers of 4096 bytes
        raise _damaged(file, f"{file.stat().st_size} bytes")


def _connect(file: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1, "autoload_known_extensions": False})
    try:
        mode = "READ_ONLY" if read_only else _LAYOUT
        connection.execute(f"ATTACH '{_quoted(file)}' AS pool ({mode})")
        connection.execute("USE pool")
        row = connection.execute(
            "SELECT total_blocks * block_size FROM pragma_database_size() WHERE database_name = 'pool'"
        ).fetchone()
    except duckdb.Error as error:
        connection.close()
        holder = re.search(r"PID (\d+)", str(error))
        if "set lock" in str(error):
            who = f"process {holder[1]}" if holder else "another process"
            raise PoolError(
                file, f"is in use by {who}", "one process that writes a pool",
                "Wait for it or stop it, or give each camera's process a pool of its own.",
            ) from error  # fmt: skip
        raise _damaged(file, error) from error
    assert row is not None
    if file.stat().st_size < int(row[0]):
        connection.close()
        raise _damaged(file, f"{file.stat().st_size} of {int(row[0])} bytes")
    return connection


def _damaged(file: Path, reason: object) -> PoolError:
    return PoolError(
        file, f"is truncated or damaged ({_first_line(reason)})", "a whole pool",
        "It was not changed: copy it back from a backup, or move it away and start another pool.",
    )  # fmt: skip


def _first_line(reason: object) -> str:
    return str(reason).strip().splitlines()[0][:160]


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
