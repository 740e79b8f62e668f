"""The simulated year: who is recognised after how many days, by each gallery, and what the store of it takes.

Draws a pen of eight with its whole archive, and two hundred animals with a bounded gallery: `configs/year`. It takes a
quarter of an hour on a free core.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml

from pl_distill.cli import main
from pl_distill.commands.parsing import find_recipe
from pl_distill.evaluation.simulated_year import DAY_S, Archive, YearPlan, draw_year, sampling_days
from pl_distill.models.embedder import Embedder
from pl_distill.models.embedder_load import load_embedder
from pl_distill.reid.pool import EmbeddingPool
from tests.benchmarks.measure import Figure

SCORES = ("rank1", "mean_ap", "idf1")
VERDICTS = ("recognised", "false_new", "false_merge")


def measure() -> Iterator[Figure]:
    """Measure both years; the store is that of the eight."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("eight", "two_hundred"):
            yield from year(name, Path(folder) / name, [f"--config=year/{name}.yaml"])
        recipe = yaml.safe_load(Path(find_recipe("year/eight.yaml")).read_text(encoding="utf-8"))
        yield from store(Path(folder) / "eight", load_embedder(), YearPlan(**recipe["plan"]))


def year(name: str, out: Path, options: Sequence[str]) -> Iterator[Figure]:
    """Draw and score a year, and give every gallery's scores at every gap, in percent.

    Args:
        name: Of the figures.
        out: Folder of what is drawn.
        options: Of ``pl-distill reid year``.
    """
    code = main(["reid", "year", f"--out={out}", *options])
    assert code == 0, f"reid year ended with {code}"
    for row in json.loads((out / "year.json").read_text(encoding="utf-8"))["rows"]:
        place = f"year.{name}.{row['method']}_after_{row['gap_days']}_days"
        found = {score: row[score] for score in SCORES} | {one: row["known_or_new"][one] for one in VERDICTS}
        for score, share in found.items():
            yield Figure(f"{place}.{score}", share["percent"], "%")


def store(out: Path, embedder: Embedder, plan: YearPlan, per_hour: int = 7) -> Iterator[Figure]:
    """Put the archive of a year that was drawn into a pool, and measure the file.

    Args:
        out: The folder that `year` drew into.
        embedder: Whose vectors these are.
        plan: Of the year.
        per_hour: Vectors of an animal in an hour.
    """
    drawn = draw_year(plan, embedder, out / "drawn", lambda _days: None)
    archive, days = Archive(drawn), sampling_days(plan.days, per_hour)
    with EmbeddingPool(out / "pool", drawn.embedder, embedder.dimension) as pool:
        for animal, name in enumerate(drawn.names):
            track = pool.add_track("cam", "year", animal, name)
            pool.append_arrays(np.full(len(days), track), days * DAY_S, archive.vectors(animal, days))
        vectors = len(days) * len(drawn.names)
        assert sum(pool.count().values()) == vectors
        yield Figure("year.store_vectors", vectors, "vectors")
        yield Figure("year.store_mb", pool.size_bytes() / 1e6, "MB")
        budget = pool.sampling.budget_bytes(embedder.dimension)
        yield Figure("year.store_bytes_per_animal_year_over_budget", pool.bytes_per_animal_year() / budget, "ratio")
