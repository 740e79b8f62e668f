"""`pl-distill reid`: look into a pool, mend its identities, and score re-identification on a simulated year."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from pl_distill.evaluation.simulated_year import YearPlan, draw_year
from pl_distill.evaluation.year_scores import format_year, score_year, write_year_scores
from pl_distill.evaluation.year_scoring import YearScoring
from pl_distill.reid import identities
from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.record_files import RECORD
from pl_distill.reid.record_identities import follow_identities
from pl_distill.reid.track_book import UNKNOWN

log = logging.getLogger(__name__)

DEFAULT_PLAN, DEFAULT_SCORING = YearPlan(), YearScoring()


def info(pool: Path, animal: str | None = None, links: bool = False) -> None:
    """Show what a pool holds: animals, tracks, bytes, and what was merged and split; of one animal, its tracks.

    Example: pl-distill reid info --pool runs/pool --animal animal-0002

    Args:
        pool: Folder given to `track --pool`.
        animal: Show each of its tracks, with the number that `split` wants and the event that made it the animal's, and
            what was merged and split of it. An empty name shows the tracks without one.
        links: Whether the log is shown with its links: each track is one.
    """
    with _open(pool) as opened:
        log = [event for event in identities.events(opened) if links or event.kind != "link"]
        if animal is None:
            _show_pool(opened)
        else:
            _show_animal(opened, animal)
            log = [one for one in log if animal in one.before.values() or animal in one.after.values()]
        for event in log:
            moved = sorted(set(event.before.values()) - {UNKNOWN}) or ["nobody"]
            given = sorted(set(event.after.values()))
            undone = " (undone)" if event.undone else ""
            change = f"{', '.join(moved)} -> {', '.join(given)}"
            print(f"event {event.number:<5} {event.kind:<6} {change}: {event.reason}{undone}")


def _show_pool(pool: EmbeddingPool) -> None:
    counts, sampling = pool.count(), pool.sampling
    budget = sampling.budget_bytes(pool.dimension)
    print(f"embedder  {pool.embedder[:16]}, {pool.dimension} values as {sampling.storage}")
    print(f"sampling  {sampling.per_hour} an hour; {budget / 1e6:.1f} MB of vectors for an animal and year")
    print(f"on disk   {pool.size_bytes() / 1e6:.2f} MB for {sum(counts.values())} embeddings")
    for animal in (*pool.animals, UNKNOWN):
        if tracks := pool.tracks_of(animal):
            shown = f"{tracks[:8]}"[:-1] + (", ...]" if len(tracks) > 8 else "]")
            name = animal or "(no name yet)"
            print(f"{name:<16} {counts.get(animal, 0):>8} embeddings of {len(tracks)} tracks {shown}")


def _show_animal(pool: EmbeddingPool, animal: str) -> None:
    if animal != UNKNOWN:
        identities.check_known(pool, animal)
    given = {track: event.number for event in identities.events(pool) if not event.undone for track in event.after}
    names, seen = pool.track_names(), pool.seen(animal)
    for track in pool.tracks_of(animal):
        camera, session, number = names[track]
        kept = "no embedding"
        if track in seen:
            first, last = (f"{datetime.fromtimestamp(one, UTC):%Y-%m-%d %H:%M:%S}" for one in seen[track][1:])
            kept = f"{seen[track].embeddings} embeddings, {first} to {last} UTC"
        event = f", event {given[track]}" if track in given else ""
        print(f"track {track:<7} camera {camera}, session {session}, number {number}: {kept}{event}")


def merge(pool: Path, animal: str, into: str, reason: str = "") -> None:
    """Give an animal's tracks to another; into a name that nobody has, it is renamed.

    The hours of the record beside the pool follow, here and in `split` and `undo`.
    Example: pl-distill reid merge --pool runs/pool --animal animal-0009 --into animal-0002 --reason "same ear tag"

    Args:
        pool: Folder of the pool.
        animal: Whose tracks.
        into: Who gets them.
        reason: For the log.
    """
    with _open(pool) as opened:
        number = identities.merge(opened, animal, into, reason)
    print(f"event {number}; take it back with: pl-distill reid undo --pool {pool} --event {number}")


def split(pool: Path, tracks: list[int], new: str, reason: str = "") -> None:
    """Take tracks away from their animal and give them to a new one.

    Example: pl-distill reid split --pool runs/pool --tracks [12,13] --new sow-17

    Args:
        pool: Folder of the pool.
        tracks: Numbers as `reid info --animal` shows them.
        new: Name of the new animal.
        reason: For the log.
    """
    with _open(pool) as opened:
        number = identities.split(opened, tracks, new, reason)
    print(f"event {number}; take it back with: pl-distill reid undo --pool {pool} --event {number}")


def undo(pool: Path, event: int) -> None:
    """Take a link, merge or split back; of a renaming also what came to the new name since.

    Example: pl-distill reid undo --pool runs/pool --event 4

    Args:
        pool: Folder of the pool.
        event: Its number in the log: `reid info` shows merges and splits, and with --animal the link of each track.
    """
    with _open(pool) as opened:
        identities.undo(opened, event)
    print(f"event {event} is undone")


def year(
    out: Path,
    embedder: str = "pen_embedder",
    plan: YearPlan = DEFAULT_PLAN,
    scoring: YearScoring = DEFAULT_SCORING,
) -> None:
    """Draw a year of pens whose animals grow, get dirty and stand in other light, and score who is recognised.

    Writes year.json and year.md; what a killed run has drawn is not drawn again.
    Example: pl-distill reid year --config year/eight.yaml --out runs/year-eight

    Args:
        out: Folder of everything that is made.
        embedder: Folder, hub name or shipped name of the embedder.
        plan: What is drawn.
        scoring: What is asked.
    """
    from pl_distill.models.embedder_load import load_embedder  # transformers takes seconds to import

    if left_out := scoring.check(plan.drawn_days):
        log.warning("no drawn day lies %s days after another and after the days of validation", left_out)
    network = load_embedder(embedder)
    with tqdm(total=plan.pens * len(plan.drawn_days), desc="draw", unit="day") as bar:

        def advance(days: int) -> None:
            bar.update(days)

        drawn = draw_year(plan, network, out / "drawn", advance)
    scores = score_year(drawn, scoring)
    write_year_scores(out / "year.json", scores)
    table = format_year(scores)
    (out / "year.md").write_text(table + "\n", encoding="utf-8")
    chosen = f"decay {scores.decay_per_day} a day, half-life {scores.half_life_days} days"
    print(f"\n{len(drawn.vectors)} embeddings of {scores.animals} animals, {chosen}\n\n{table}")
    print(f"\nscores    {out / 'year.json'}")


@contextmanager
def _open(pool: Path) -> Iterator[EmbeddingPool]:
    """Open a pool; the record beside it follows what is changed, and what a killed call has changed before."""
    with EmbeddingPool(pool) as opened:
        yield opened
        try:
            follow_identities(pool / RECORD, opened)
        except OSError as error:
            log.warning(
                "the pool is changed, the record is not yet (%s); the next `reid` or `track --pool` does it", error
            )
