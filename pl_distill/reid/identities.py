"""Who is who: linking, merging and splitting animals of a pool; every change is logged, and can be undone."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pl_distill.reid.errors import PoolError
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.track_book import UNKNOWN

Kind = Literal["link", "merge", "split"]


@dataclass(frozen=True)
class Event:
    """One line of the log.

    Args:
        number: Its number, from 0.
        time: When it was written.
        kind: What was done.
        reason: In words, or scores.
        before: Animal of each track that it moved, before.
        after: The same, after.
        undone: Whether it was undone.
        renames: Whether it was a merge into a name that nobody had.
    """

    number: int
    time: datetime
    kind: str
    reason: str
    before: dict[int, str]
    after: dict[int, str]
    undone: bool
    renames: bool = False


def link(pool: EmbeddingPool, tracks: Sequence[int], animal: str, reason: str = "") -> int:
    """Say that tracks belong to an animal, known or new; returns the event's number."""
    return _move(pool, "link", dict.fromkeys(tracks, animal), reason)


def merge(pool: EmbeddingPool, animal: str, into: str, reason: str = "") -> int:
    """Give all tracks of one animal to another; into a name that nobody has, it is a renaming.

    Raises:
        PoolError: The animal is unknown, or both are the same.
    """
    check_known(pool, animal)
    into = into.strip()  # a blank at its end would make another animal of it
    if not into or animal == into:
        raise PoolError(f"animal '{animal}'", f"would be merged into '{into}'", "another animal", "Correct the name.")
    moved = dict.fromkeys(pool.tracks_of(animal), into)
    return _move(pool, "merge", moved, reason, renames=into not in pool.animals)


def split(pool: EmbeddingPool, tracks: Iterable[int], new: str, reason: str = "") -> int:
    """Take tracks away from their animal and give them to one that does not exist yet.

    Raises:
        PoolError: A track is unknown, or the new animal exists.
    """
    wanted = list(tracks)
    if not wanted:
        raise PoolError("--tracks", "is empty", "a track or more of `reid info --animal`", "Name some.")
    for track in wanted:
        if track not in pool.track_names():
            raise PoolError(
                f"track {track}", "is not in the pool", "a track of `reid info --animal`", "Correct the number."
            )
    new = new.strip()
    if not new or new in pool.animals:
        found = "exists already" if new else "is no name"
        raise PoolError(f"animal '{new}'", found, "a new name", "Choose another, or merge.")
    return _move(pool, "split", dict.fromkeys(wanted, new), reason)


def undo(pool: EmbeddingPool, number: int) -> None:
    """Take an event back: its tracks return to where they were.

    After a renaming, tracks that came to the new name since are the same animal's: they get the old name, too, by a
    merge of their own in the log.

    Raises:
        PoolError: There is no such event, it was undone, a later one moved the same tracks, or gave all others of the
            animal that they would return to another name, or their old name is that of another animal by now.
    """
    log = {event.number: event for event in events(pool)}
    event = log.get(number)
    if event is None or event.undone:
        raise PoolError(
            f"event {number}", "does not exist" if event is None else "is undone already",
            "an event of `reid info`, or of its --animal or --links", "Correct the number.",
        )  # fmt: skip
    valid = [other for other in log.values() if not other.undone]
    later = [other for other in valid if other.number > number]
    for other in later:
        if other.before.keys() & event.before.keys():
            raise PoolError(
                f"event {number}", f"is followed by event {other.number}, which moved the same tracks",
                "no later event", f"Undo event {other.number} first.",
            )  # fmt: skip
    for old in sorted(set(event.before.values()) - {UNKNOWN}):
        same = _holders(pool, log.values(), old, number)
        gone = next((other for other in later if other.kind == "merge" and same & other.before.keys()), None)
        if gone is not None and old not in pool.animals:
            (into,) = set(gone.after.values())
            raise PoolError(
                f"event {number}", f"would bring '{old}' back, which event {gone.number} made '{into}'",
                "a name that the animal still has",
                f"Undo event {gone.number} first, or give its tracks to '{into}': `reid merge`.",
            )  # fmt: skip
        taken = _taken_since(pool, list(log.values()), number, old)
        if taken is not None:
            raise PoolError(
                f"event {number}", f"would give tracks to '{old}', which is another animal since event {taken}",
                "a name that nobody has, or that the same animal still has",
                f"Undo event {taken} first, or give the '{old}' of now another name by `reid merge`.",
            )  # fmt: skip
    with pool.transaction() as connection:
        for track, animal in event.before.items():
            pool.assign([track], animal)
        connection.execute("UPDATE events SET undone = true WHERE event = ?", [number])
        if event.renames:
            (old,), (new,) = set(event.before.values()), set(event.after.values())
            arrived = {track for other in later for track in other.after}  # what was there before is another's
            if since := [track for track in pool.tracks_of(new) if track in arrived]:
                _move(pool, "merge", dict.fromkeys(since, old), f"event {number}, a renaming, was undone")


def _taken_since(pool: EmbeddingPool, log: Sequence[Event], number: int, name: str) -> int | None:
    """Give the event after `number` that gave a name to the animal that has it, where nobody had it; None without one.

    What was undone is taken as never done.
    """
    held = _holders(pool, log, name, 0)
    taken = None
    for event in log:
        if event.undone:
            continue
        was_free = not held
        held.difference_update(event.after)
        held |= {track for track, animal in event.after.items() if animal == name}
        if held and was_free:
            taken = event.number
    return taken if held and taken is not None and taken > number else None


def _holders(pool: EmbeddingPool, log: Iterable[Event], name: str, number: int) -> set[int]:
    """Give the tracks that an animal had before an event, what was undone taken as never done."""
    log = list(log)
    first: dict[int, str] = {}  # whose each track was before anything was done
    for event in log:
        for track, animal in event.before.items():
            first.setdefault(track, animal)
    held = {track for track in pool.tracks_of(name) if track not in first}
    held |= {track for track, animal in first.items() if animal == name}
    for event in log:
        if event.number < number and not event.undone:
            held.difference_update(event.after)
            held |= {track for track, animal in event.after.items() if animal == name}
    return held


def events(pool: EmbeddingPool) -> list[Event]:
    """Read the log, the oldest first."""
    rows = pool.rows("SELECT event, time, kind, detail, undone FROM events ORDER BY event")
    found = []
    for number, time, kind, detail, undone in rows:
        content = json.loads(detail)
        before, after = ({int(track): name for track, name in content[key].items()} for key in ("before", "after"))
        renames = content.get("renames", False)  # older logs do not say
        found.append(Event(int(number), time, kind, content["reason"], before, after, bool(undone), renames))
    return found


def new_name(pool: EmbeddingPool) -> str:
    """Give a name that no animal has or had: animal-0001 and so on."""
    return f"animal-{pool.highest_number + 1:04d}"


def check_known(pool: EmbeddingPool, animal: str) -> None:
    """See that there is an animal of this name.

    Raises:
        PoolError: There is none.
    """
    if animal not in pool.animals:
        raise PoolError(
            f"animal '{animal}'", "is not in the pool", ", ".join(pool.animals[:12]) or "an animal", "Correct the name."
        )


def _move(pool: EmbeddingPool, kind: Kind, after: dict[int, str], reason: str, renames: bool = False) -> int:
    before = {track: pool.animal_of(track) for track in after}
    detail = json.dumps({"reason": reason, "before": before, "after": after, "renames": renames})
    with pool.transaction() as connection:
        ((number,),) = connection.execute("SELECT count(*) FROM events").fetchall()
        connection.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, false)",
            [number, datetime.now(UTC).replace(tzinfo=None), kind, detail],
        )
        for track, animal in after.items():
            pool.assign([track], animal)
    return int(number)
