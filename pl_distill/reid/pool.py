"""The pool: embeddings of every animal, on disk, in a budget, for years.

An embedding belongs to a track (camera, session, the tracker's number), and a track to an animal. Merging and splitting
animals moves tracks only, is written down, and can be undone; see `identities`. A commit is synced before `offer`
returns: a kill loses at most the call that ran.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamodules.stops import stops_wait
from pl_distill.reid.errors import PoolError, told_as_fault
from pl_distill.reid.pool_file import (
    POOL_FILE,
    PoolMeta,
    check_meta,
    connect,
    create_file,
    from_blobs,
    read_meta,
    to_blobs,
    write_compacted,
)
from pl_distill.reid.samples import Sample, Stored
from pl_distill.reid.sampling import SECONDS_PER_YEAR, SamplingPolicy
from pl_distill.reid.storage import NUMPY_TYPE, Vectors, decode, encode
from pl_distill.reid.track_book import UNKNOWN, TrackBook, TrackName

_UNIT_TOLERANCE = 1e-2
_MOST_ROWS = 2000  # of a commit: DuckDB writes a whole group of rows at once, and again when the next rows join it


class Revision(NamedTuple):
    """State of an animal's vectors, for who holds a copy of them in memory.

    Args:
        moves: How often tracks with vectors came to the animal or went from it since the pool was opened.
        newest: Number of its newest row; of an animal without new ones, of the last row when the pool was opened.
    """

    moves: int
    newest: int


class SeenTrack(NamedTuple):
    """What the pool holds of a track.

    Args:
        embeddings: How many; at least 1.
        first_s: Time of the oldest, in seconds since 1970 (UTC).
        last_s: Of the newest.
    """

    embeddings: int
    first_s: float
    last_s: float


class EmbeddingPool:
    """A store of embeddings that outlives the process. Use it as a context manager, or close it.

    Args:
        path: Its folder; made if `embedder` is given and it does not exist.
        embedder: Identity (SHA-256) of the network that makes the embeddings; None reads whatever is there.
        dimension: Length of an embedding; None as for `embedder`.
        sampling: Which embeddings are kept; a pool that exists keeps its storage, and refuses another.
        read_only: Whether nothing will be written.

    Raises:
        PoolError: There is no pool, it is damaged, in use, or of another embedder, dimension or storage; also from any
            method: the file turned out to be damaged, or its disk is full.
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
        if not self._file.exists():
            if embedder is None or dimension is None or read_only:
                raise PoolError(self.path, "holds no pool", POOL_FILE, "Name the folder given to `track --pool`.")
            create_file(self._file, PoolMeta(embedder, dimension, sampling or SamplingPolicy()))
        self._connection = connect(self._file, read_only)
        try:
            found = read_meta(self._connection, self._file)
            check_meta(found, self._file, embedder, dimension, sampling)
            self.embedder, self.dimension = found.embedder, found.dimension
            self.sampling = sampling or found.sampling
            self._depth = 0
            ((newest,),) = self.rows("SELECT max(id) FROM vectors")
            self._next_id = 0 if newest is None else int(newest) + 1
            self._last_before = self._next_id - 1
            self._newest: dict[str, int] = {}
            self._moves: Counter[str] = Counter()
            self._book = TrackBook(self.rows, self.sampling)
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
        kept: list[bool] = []
        chosen: set[tuple[str, int]] = set()
        for sample in samples:
            owner, slot = self._book.owner_of(sample), self.sampling.slot_of(sample.time_s)
            free = (owner, slot) not in chosen and not self._book.is_filled(owner, slot)
            kept.append(free and sample.quality >= self.sampling.min_quality)
            if kept[-1]:
                chosen.add((owner, slot))
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
            self.check(sample)
        with self.transaction():
            tracks = [self.add_track(one.camera, one.session, one.number) for one in samples]
            self.append_arrays(
                np.array(tracks), np.array([sample.time_s for sample in samples]),
                np.stack([sample.vector for sample in samples]), np.array([sample.quality for sample in samples]),
            )  # fmt: skip
        for sample in samples:
            self._book.fill(self._book.owner_of(sample), sample.time_s)

    def check(self, sample: Sample) -> None:
        """Refuse what is no embedding of this pool.

        Raises:
            PoolError: The vector has another dimension, is not finite, or not of unit length.
        """
        where = f"embedding of track {sample.number}, camera '{sample.camera}'"
        vector = np.asarray(sample.vector)
        if vector.shape != (self.dimension,):
            raise PoolError(where, f"has shape {vector.shape}", f"({self.dimension},)", "Load this pool's embedder.")
        length = float(np.linalg.norm(vector))
        if not abs(length - 1) < _UNIT_TOLERANCE:  # also not a number
            raise PoolError(where, f"has length {length:.3g}", "1", "Normalise it; an empty crop has no embedding.")

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
            "vector": to_blobs(stored),
        }
        if self.sampling.storage == "int8":
            columns["scale"] = scale
        with self._given("new_rows", pa.table(columns)):
            self.rows("INSERT INTO vectors SELECT * FROM new_rows")
        self._next_id += number
        for track in set(tracks.tolist()):
            self._book.with_vectors.add(track)
            self._newest[self._book.animal_of[track]] = self._next_id - 1

    def add_track(self, camera: str, session: str, number: int, animal: str = UNKNOWN) -> int:
        """Make a track, or give the number of the one that exists (its animal stays)."""
        key = (camera, session, number)
        known = self._book.number_of.get(key)
        if known is not None:
            return known
        track = len(self._book.number_of)
        self.rows("INSERT INTO tracks VALUES (?, ?, ?, ?, ?)", [track, *key, animal])
        self._book.add(key, track, animal)
        return track

    def assign(self, tracks: Iterable[int], animal: str) -> None:
        """Say whose these tracks are. `identities` does it with a line in the log."""
        for track in tracks:
            if track in self._book.with_vectors and (before := self._book.animal_of[track]) != animal:
                self._moves.update((before, animal))
            self.rows("UPDATE tracks SET animal = ? WHERE track = ?", [animal, track])
            self._book.assign([track], animal)

    def delete(self, ids: NDArray[np.int64]) -> int:
        """Delete rows for good; `thinning` decides which may go. The file shrinks with `compact`."""
        with self._given("old_rows", pa.table({"id": ids})), self.transaction():
            self.rows("DELETE FROM vectors WHERE id IN (SELECT id FROM old_rows)")
        return len(ids)

    def compact(self) -> None:
        """Write the file anew without what was deleted: beside the old one first, then in its place."""
        with told_as_fault(self._file):
            self._connection = write_compacted(self._connection, self._file)

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """All or nothing; a transaction inside another is part of it, and a stop waits for its end."""
        if self._depth:
            yield self._connection
            return
        self._depth += 1
        try:
            with stops_wait(), told_as_fault(self._file):
                self._connection.begin()
                yield self._connection
                self._connection.commit()
        except BaseException:
            with suppress(duckdb.Error):  # a commit that failed has ended the transaction: nothing is left to take back
                self._connection.rollback()
            with suppress(PoolError):  # of a file that cannot be read any more; the first error says why
                self._book = TrackBook(self.rows, self.sampling)
            raise
        finally:
            self._depth -= 1

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def animals(self) -> list[str]:
        """Names of the animals that have a track."""
        return self._book.animals

    @property
    def highest_number(self) -> int:
        """The highest N of all names animal-N that an animal has or had; 0 without one."""
        return self._book.highest_number

    def tracks_of(self, animal: str) -> list[int]:
        """Numbers of an animal's tracks."""
        return sorted(track for track, name in self._book.animal_of.items() if name == animal)

    def animal_of(self, track: int) -> str:
        """Name of the animal that a track belongs to; `UNKNOWN` where nobody has said so."""
        return self._book.animal_of[track]

    def find_track(self, camera: str, session: str, number: int) -> int | None:
        """Number of the track that the tracker calls `number`; None if it has left nothing here."""
        return self._book.number_of.get((camera, session, number))

    def track_names(self) -> dict[int, TrackName]:
        """Track -> camera, session and the tracker's number."""
        return {track: key for key, track in self._book.number_of.items()}

    def owners(self) -> dict[int, str]:
        """Track -> its animal, `UNKNOWN` where nobody has said so."""
        return dict(self._book.animal_of)

    def revision(self, animal: str) -> Revision:
        """Give the state of an animal's vectors: it changes with every one that comes, and when tracks are moved."""
        return Revision(self._moves[animal], self._newest.get(animal, self._last_before))

    def count(self) -> dict[str, int]:
        """How many vectors each animal has."""
        query = "SELECT animal, count(*) FROM vectors JOIN tracks USING (track) GROUP BY animal ORDER BY animal"
        return {animal: int(number) for animal, number in self.rows(query)}

    def seen(self, animal: str) -> dict[int, SeenTrack]:
        """What each track of an animal has left here; tracks without an embedding are not among them."""
        query = (
            "SELECT track, count(*), epoch_us(min(time)) / 1e6, epoch_us(max(time)) / 1e6 "
            "FROM vectors JOIN tracks USING (track) WHERE animal = ? GROUP BY track ORDER BY track"
        )
        rows = self.rows(query, [animal])
        return {int(track): SeenTrack(int(number), float(first), float(last)) for track, number, first, last in rows}

    def vectors(
        self,
        animals: Sequence[str] | None = None,
        first_s: float | None = None,
        newest: int | None = None,
        after: int | None = None,
    ) -> Stored:
        """Read vectors.

        Args:
            animals: Of whom; None: of all that are known.
            first_s: Only those of the first so many seconds of each.
            newest: Only so many of each animal.
            after: Only rows of a higher number than this; see `revision`.
        """
        names = self.animals if animals is None else list(animals)
        scale = "scale" if self.sampling.storage == "int8" else "1::FLOAT AS scale"
        where = "list_contains(?, animal)" + ("" if after is None else f" AND id > {after:d}")
        values: list[Any] = [names]
        joined = "vectors JOIN tracks USING (track)"
        if first_s is not None:
            began = "SELECT animal, min(time) AS began FROM vectors JOIN tracks USING (track) GROUP BY animal"
            joined += f" JOIN ({began}) USING (animal)"
            where += f" AND time < began + to_microseconds({round(first_s * 1e6):d})"
        rank = "row_number() OVER (PARTITION BY animal ORDER BY time DESC)"
        limit = "" if newest is None else f" QUALIFY {rank} <= {newest:d}"
        query = (
            f"SELECT id, animal, epoch_us(time) / 1e6 AS time_s, {scale}, vector FROM {joined} "
            f"WHERE {where}{limit} ORDER BY animal, time, id"
        )
        kind = np.dtype(NUMPY_TYPE[self.sampling.storage])
        with told_as_fault(self._file):
            table = self._connection.sql(query, params=values).to_arrow_table()
            stored = from_blobs(table["vector"], self.dimension, kind)
        return Stored(
            table["id"].to_numpy(),
            np.array(table["animal"].to_pylist(), dtype=np.str_),
            table["time_s"].to_numpy(),
            decode(stored, table["scale"].to_numpy(), self.sampling.storage),
        )

    def rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Ask the file itself, in SQL; `values` take the places of its question marks."""
        with told_as_fault(self._file):
            found: list[tuple[Any, ...]] = self._connection.execute(query, values).fetchall()
        return found

    def size_bytes(self) -> int:
        """Bytes of the pool on disk, everything included, after its log is written into the file."""
        self.rows("CHECKPOINT")
        return sum(file.stat().st_size for file in self.path.iterdir() if file.name.startswith(POOL_FILE))

    def bytes_per_animal_year(self) -> float:
        """Measured bytes of the store for one animal and a year of sampling at the policy's full rate."""
        rows = sum(self.count().values())
        per_year = self.sampling.per_hour * SECONDS_PER_YEAR / 3600
        return self.size_bytes() / max(rows, 1) * per_year

    # --- inside ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _given(self, name: str, table: pa.Table) -> Iterator[None]:
        """Let queries name a table in memory."""
        with told_as_fault(self._file):
            self._connection.register(name, table)
            try:
                yield
            finally:
                self._connection.unregister(name)
