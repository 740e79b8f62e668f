"""A data set as small as one can be: drawn, sharded, and cached by the random teacher, through the console script."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from datamodules.layouts import read_clips
from datamodules.pen import draw_pen, load_pen_config
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.cli import main
from pl_distill.models.sam3 import write_random_sam3

FRAMES = 8  # of training and of validation


@dataclass(frozen=True)
class Cached:
    """What a student learns from.

    Args:
        teacher: Folder of a random SAM 3.
        shards: Image shards.
        cache: Its feature shards.
    """

    teacher: Path
    shards: Path
    cache: Path

    @property
    def options(self) -> list[str]:
        """What `pl-distill fit` needs to know."""
        return [f"--model.teacher={self.teacher}", f"--data.shards={self.shards}", f"--data.cache={self.cache}"]


@pytest.fixture(scope="session")
def cached(tmp_path_factory) -> Callable[[str], Cached]:
    """Return what a teacher of a configuration in configs/sam3 has cached; each is made once."""
    root = tmp_path_factory.mktemp("cached")
    small = replace(load_pen_config("day"), width=160, height=90)
    draw_pen(root / "clips", small, days=["2026_01_01", "2026_01_21"], clips_per_day=1, frames_per_clip=FRAMES, seed=0)
    write_shards(read_clips(root / "clips"), load_split("pen"), root / "shards", samples_per_shard=5)
    made: dict[str, Cached] = {}

    def make(config: str) -> Cached:
        if config not in made:
            one = Cached(root / config, root / "shards", root / f"{config}-features")
            write_random_sam3(config, one.teacher, seed=0)
            assert main(["predict", "--config", "cache/pen.yaml", *one.options]) == 0
            made[config] = one
        return made[config]

    return make
