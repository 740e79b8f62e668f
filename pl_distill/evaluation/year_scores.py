"""What a simulated year says about re-identification: scores by days since last seen, of three galleries.

Whatever is chosen (decay, half-life, threshold, margin) is chosen on the first days; every score is of later ones.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.files import write_json
from pl_distill.evaluation.average_precision import average_precisions
from pl_distill.evaluation.reid_scores import (
    OpenSet,
    Share,
    idf1,
    idf1_floors,
    link_days,
    open_set,
    share_of,
)
from pl_distill.evaluation.simulated_year import DAY_S, Archive, DrawnYear, sampling_days, time_of
from pl_distill.evaluation.year_scoring import YearScoring
from pl_distill.reid.gallery import (
    BoundedGallery,
    Gallery,
    HeldGallery,
    MeanGallery,
    RunningMeans,
    SightingsGallery,
    choose_by_age,
    recency,
)
from pl_distill.reid.matching import MatchPolicy, Scores, calibrate
from pl_distill.reid.storage import Vectors, decode, encode

METHODS = ("sightings", "recent", "mean")
_DECAYS = (0.0, 0.0003, 0.001, 0.003)
_HALF_LIVES = (7.0, 30.0, 90.0)
_MOST_RANKED = 4000  # vectors that a query's average precision ranks: the gallery, thinned evenly
SCHEMA = 4


@dataclass(frozen=True)
class GapScores:
    """One method at one gap.

    Args:
        method: Which gallery.
        gap_days: Days from the last one that the gallery knows to the one that is asked about.
        queries: How many.
        gallery: Vectors in it, on the last day that is asked about.
        visits: Days on which IDF1 names everybody, each at least `gap_days` after the one before.
        idf1_if_new: IDF1 in percent of a method that gives everybody a new identity at each visit: 100 / visits.
        idf1_if_unsure: The same where all are named at the first visit and nobody later: 200 / (visits + 1). Below it
            whoever names nobody scores better.
        rank1: Queries whose best match is their animal.
        mean_ap: Mean average precision.
        known_or_new: What threshold and margin make of them.
        idf1: Of the names that are given from the first visit on, where nobody says who is who.
    """

    method: str
    gap_days: int
    queries: int
    gallery: int
    visits: int
    idf1_if_new: float
    idf1_if_unsure: float
    rank1: Share
    mean_ap: Share
    known_or_new: OpenSet
    idf1: Share


@dataclass(frozen=True)
class YearScores:
    """Everything that was found.

    Args:
        animals: How many.
        embedder: Identity.
        decay_per_day: Chosen on validation days, for the single sightings.
        half_life_days: The same, for the recency-weighted mean.
        policies: Method -> threshold and margin, chosen on validation days.
        rows: Scores by method and gap.
    """

    animals: int
    embedder: str
    decay_per_day: float
    half_life_days: float
    policies: dict[str, MatchPolicy]
    rows: list[GapScores]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": SCHEMA, **asdict(self)}


def score_year(year: DrawnYear, how: YearScoring) -> YearScores:
    """Score every gallery at every gap that was drawn.

    Raises:
        ConfigError: Nothing of what was drawn can be scored so.
    """
    galleries = _Galleries(year, how)
    drawn = [int(day) for day in np.unique(year.days)]
    left_out = how.check(drawn)
    valid = how.choosing(drawn)
    # A gallery of a year is large: whatever is asked of one is asked before the next is made.
    options = [("sightings", decay) for decay in _DECAYS] + [("recent", days) for days in _HALF_LIVES] + [("mean", 0.0)]
    tried = [[galleries.ask(method, day, gap, option) for method, option in options] for day, gap in valid]
    hits = [float(np.mean([_rank1(*asked[place]) for asked in tried])) for place in range(len(options))]
    best = {
        method: max((place for place, one in enumerate(options) if one[0] == method), key=lambda place: hits[place])
        for method in METHODS
    }
    chosen = {method: options[place][1] for method, place in best.items()}
    policies: dict[str, MatchPolicy] = {}
    for method, place in best.items():
        scores, truth = (np.concatenate(part) for part in zip(*(asked[place] for asked in tried), strict=True))
        policies[method] = calibrate(scores, truth).policy
    rows = []
    for gap in how.gaps:
        if gap in left_out:
            continue
        days = how.asked(drawn, gap)
        asked_of: dict[str, list[tuple[Scores, NDArray[np.int64], NDArray[np.float64]]]] = {one: [] for one in METHODS}
        for day in days:
            for method in METHODS:
                asked_of[method].append(galleries.ask_all(method, day, gap, chosen[method]))
        for method in METHODS:
            scores, truth, precision = (np.concatenate(part) for part in zip(*asked_of[method], strict=True))
            visits, linked = _linked(year, method, gap, chosen[method], policies[method], how)
            rows.append(
                GapScores(
                    method,
                    gap,
                    len(truth),
                    galleries.size(days[-1] - gap),
                    visits,
                    *idf1_floors(visits),
                    share_of(scores.argmax(1) == truth, truth, year.pens),
                    share_of(precision, truth, year.pens),
                    open_set(scores, truth, policies[method], year.pens),
                    linked,
                )
            )
    return YearScores(len(year.names), year.embedder, chosen["sightings"], chosen["recent"], policies, rows)


def write_year_scores(path: Path, scores: YearScores) -> None:
    """Write JSON."""
    write_json(path, scores.to_json())


def format_year(scores: YearScores) -> str:
    """Give a Markdown table."""
    lines = [
        "| days | method | rank-1 % | mAP % | IDF1 % | false new % | wrong animal % | false merge % | unsure % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in scores.rows:
        judged = row.known_or_new
        cells = (judged.false_new, judged.wrong, judged.false_merge, judged.unsure)
        lines.append(
            f"| {row.gap_days} | {row.method} | {row.rank1} | {row.mean_ap} | {row.idf1} | "
            + " | ".join(map(str, cells)) + " |"
        )  # fmt: skip
    return "\n".join(lines)


class _Galleries:
    """Galleries of what was seen up to a day, and queries of a later day against them."""

    def __init__(self, year: DrawnYear, how: YearScoring) -> None:
        self._year, self._how = year, how
        self._archive = Archive(year)
        self._times = sampling_days(int(year.days.max()) + 1, how.per_hour)
        self._labels = np.array([f"{animal:06d}" for animal in range(len(year.names))])
        self._full: list[Vectors] | None = None
        if how.bounded is None:
            self._full = [self._stored(animal, self._times) for animal in range(len(year.names))]
        self._held: tuple[int, _Rows] | None = None

    def rows(self, until: int) -> "_Rows":
        """What is known at the end of a drawn day; nothing of a later one is mixed into it."""
        if self._held is None or self._held[0] != until:
            self._held = None  # two of them need not be in memory
            self._held = (until, self._gather(until))
        return self._held[1]

    def size(self, until: int) -> int:
        """How many vectors that is."""
        return len(self.rows(until).animals)

    def ask(self, method: str, day: int, gap: int, option: float) -> tuple[Scores, NDArray[np.int64]]:
        """Scores (Q, A) and true columns (Q,) of a day's queries."""
        known = self.rows(day - gap)
        truth, asked = self._queries(day)
        names = self._labels[known.animals]
        gallery: Gallery
        if method == "sightings":
            gallery = SightingsGallery.of(names, known.times_s, known.vectors, option)
        else:
            weights = recency(known.times_s, option) if method == "recent" else None
            gallery = MeanGallery.of(names, known.vectors, weights)
        return gallery.scores(asked), truth

    def ask_all(
        self, method: str, day: int, gap: int, option: float
    ) -> tuple[Scores, NDArray[np.int64], NDArray[np.float64]]:
        """The same, and the average precision (Q,); of the mean gallery over one vector an animal."""
        scores, truth = self.ask(method, day, gap, option)
        if method != "sightings":
            right = np.arange(scores.shape[1])[None] == truth[:, None]
            return scores, truth, average_precisions(scores.astype(float), right)
        known, (_, asked) = self.rows(day - gap), self._queries(day)
        thin = np.linspace(0, len(known.animals) - 1, min(_MOST_RANKED, len(known.animals))).astype(int)
        age = (known.times_s.max() - known.times_s[thin]) / DAY_S
        likeness = (asked @ known.vectors[thin].T).astype(float) - option * age
        return scores, truth, average_precisions(likeness, known.animals[thin][None] == truth[:, None])

    def _queries(self, day: int) -> tuple[NDArray[np.int64], Vectors]:
        mine = self._year.asked & (self._year.days == day)
        return self._year.animals[mine], self._year.vectors[mine]

    def _stored(self, animal: int, days: NDArray[np.float64]) -> Vectors:
        """What the archive gives back of the vectors of these times."""
        return decode(*encode(self._archive.vectors(animal, days), self._how.storage), self._how.storage)

    def _gather(self, until: int) -> "_Rows":
        seen = self._times[self._times <= until]
        animals, times, vectors = [], [], []
        for animal in range(len(self._year.names)):
            if self._full is not None:
                chosen, mine = np.arange(len(seen)), self._full[animal][: len(seen)]
            else:
                chosen = choose_by_age(seen * DAY_S, self._how.bounded or len(seen))
                mine = self._stored(animal, seen[chosen])
            animals.append(np.full(len(chosen), animal))
            times.append(seen[chosen] * DAY_S)
            vectors.append(mine)
        return _Rows(np.concatenate(animals), np.concatenate(times), np.concatenate(vectors))


class _Rows(NamedTuple):
    """A gallery's vectors: animals (M,), times in seconds (M,), vectors (M, D)."""

    animals: NDArray[np.int64]
    times_s: NDArray[np.float64]
    vectors: Vectors


def _linked(
    year: DrawnYear, method: str, gap: int, option: float, policy: MatchPolicy, how: YearScoring
) -> tuple[int, Share]:
    """Visits and IDF1 of naming animals day by day, with at least `gap` days between: nobody says who they are.

    It begins after the days on which `option` and `policy` were chosen.
    """
    drawn = np.unique(year.days[year.days >= how.validation_days])
    days = [int(drawn[0])]
    for day in drawn:
        if day - days[-1] >= gap:
            days.append(int(day))
    held: HeldGallery
    if method == "sightings":
        held = BoundedGallery(how.bounded or 512, option)
    else:
        held = RunningMeans(option if method == "recent" else None)

    def tracklets(day: int) -> tuple[NDArray[np.int64], list[Vectors]]:
        here = np.unique(year.animals[year.days == day])
        return here, [year.vectors[(year.days == day) & (year.animals == animal)] for animal in here]

    def score(vectors: Vectors) -> tuple[Scores, Sequence[str]]:
        return held.gallery.scores(vectors), held.gallery.animals

    def learn(name: str, day: int, vectors: Vectors) -> None:
        held.add(name, np.full(len(vectors), time_of(day)), vectors)

    return len(days), idf1(*link_days(days, tracklets, score, learn, policy), year.pens)


def _rank1(scores: Scores, truth: NDArray[np.int64]) -> float:
    return float((scores.argmax(1) == truth).mean())
