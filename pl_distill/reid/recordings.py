"""A pool takes each recording once, and each moment of a camera once: hours are added up, and would count twice."""

import logging
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

from pl_distill.reid.errors import PoolError
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.record_files import day_file, read_file

log = logging.getLogger(__name__)

CUT_S = 60.0
"""So long two recordings may overlap: the rest of one whose run was killed begins a little before its last sight."""


def session_of(started: datetime) -> str:
    """Name a run after its instant: the same in every time zone."""
    return started.astimezone(UTC).isoformat(timespec="milliseconds")


def require_new(pool: EmbeddingPool, record: Path, camera: str, started: datetime, end: datetime | None) -> None:
    """Refuse what the pool holds of a camera already.

    How far a recording goes is known from its embeddings and from the record. Of the last minutes there may be no
    embedding, and of a whole recording none, where another camera shows the same animals: each is kept once.

    Args:
        pool: Open.
        record: Folder of the record beside it; need not exist.
        camera: Its name.
        started: When the new recording begins.
        end: When it ends; None of a camera that runs, whose clock may be wrong, and which is warned of instead.

    Raises:
        PoolError: It holds this recording, or another of the same time.
        RecordError: The camera's name is no name of a folder, or a day of its record is damaged.
    """
    session = session_of(started)
    runs = {name for own, name, _ in pool.track_names().values() if own == camera}
    if session in map(_in_utc, runs):
        raise PoolError(
            f"camera '{camera}'", f"has a run in the pool that began at {session}", "each recording once",
            "Its tracks would take the names of that run's, and its hours would count twice. Where it is another "
            "recording, give another --camera or --began. Where the run was killed, use a video tool to cut off "
            "the frames that its run.json counts, and give the rest its own --began; or take another --pool.",
        )  # fmt: skip
    begin_s, end_s = started.timestamp(), math.inf if end is None else end.timestamp()
    for first_s, last_s in chain(_spans(pool, camera), _recorded(record, camera, started, end)):
        if min(end_s, last_s) - max(begin_s, first_s) <= CUT_S:
            continue
        first, last = (session_of(datetime.fromtimestamp(time_s, UTC)) for time_s in (first_s, last_s))
        if end is None:
            log.warning(
                "camera '%s' begins at %s, but the pool holds it from %s to %s: what it sees until then counts twice "
                "in the record. Set the machine's clock, or give another --camera",
                camera, session, first, last,
            )  # fmt: skip
            return
        raise PoolError(
            f"camera '{camera}'", f"is in the pool from {first} to {last}, and this recording from {session} to "
            f"{session_of(end)}", "each moment of a camera once",
            "Its hours would count twice. Give the recording's own --began (by default it is now), or, where it is of "
            "another camera, another --camera.",
        )  # fmt: skip


def _spans(pool: EmbeddingPool, camera: str) -> list[tuple[float, float]]:
    """Give the first and the last sight of each run of a camera, in seconds since 1970 (UTC)."""
    query = (
        "SELECT epoch_us(min(time)) / 1e6, epoch_us(max(time)) / 1e6 FROM vectors JOIN tracks USING (track) "
        "WHERE camera = ? GROUP BY session ORDER BY 1"
    )
    return [(float(first), float(last)) for first, last in pool.rows(query, [camera])]


def _recorded(record: Path, camera: str, started: datetime, end: datetime | None) -> Iterator[tuple[float, float]]:
    """Give for each run and hour of the days between two moments since when, and until when at least, it went on.

    Whoever was seen for longest in an hour was seen from its beginning on, or from that of the run.
    """
    day, last = started.astimezone(UTC).date(), (end or started).astimezone(UTC).date()
    while day <= last:
        path = day_file(record, camera, day)
        seen_s: dict[tuple[str, float], float] = {}
        for row in read_file(path).to_pylist() if path.exists() else ():
            lasted: dict[str, float] = {}
            for one in row.get("tracks") or ():
                lasted[one["session"]] = lasted.get(one["session"], 0.0) + one["seen_s"]
            for session, seconds in lasted.items():
                key = (session, row["hour"].timestamp())
                seen_s[key] = max(seen_s.get(key, 0.0), seconds)
        for (session, hour_s), seconds in seen_s.items():
            first_s = max(hour_s, _began_s(session))
            yield first_s, first_s + seconds
        day += timedelta(days=1)


def _began_s(session: str) -> float:
    """Give the instant that a session is named after, in seconds since 1970; the earliest where it is no instant."""
    try:
        return datetime.fromisoformat(session).timestamp()
    except ValueError:
        return -math.inf


def _in_utc(session: str) -> str:
    """Name a session as today: older pools kept the time zone that was given."""
    try:
        return session_of(datetime.fromisoformat(session))
    except ValueError:  # named by other means than `track`
        return session
