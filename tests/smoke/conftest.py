"""A data set as small as one can be: drawn, sharded, and cached by a teacher, through the console script."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from datamodules.layouts import read_clips
from datamodules.pen import draw_pen, load_pen_config
from datamodules.shards import write_shards
from datamodules.splits import load_split
from pl_distill.assets import shipped_models
from pl_distill.cli import main
from pl_distill.models.sam3 import write_random_sam3

FRAMES = 8  # of training and of validation


@dataclass(frozen=True)
class Cached:
    """What a student learns from.

    Args:
        teacher: Folder of a random SAM 3, or the name of a shipped one.
        shards: Image shards.
        cache: Its feature shards.
    """

    teacher: Path | str
    shards: Path
    cache: Path

    @property
    def options(self) -> list[str]:
        """What `pl-distill fit` needs to know."""
        return [f"--model.teacher={self.teacher}", f"--data.shards={self.shards}", f"--data.cache={self.cache}"]


@pytest.fixture(scope="session")
def cached(tmp_path_factory) -> Callable[[str], Cached]:
    """Return what a teacher has cached, random and of a configuration in configs/sam3, or shipped; each once."""
    root = tmp_path_factory.mktemp("cached")
    small = replace(load_pen_config("day"), width=160, height=90)
    draw_pen(root / "clips", small, days=["2026_01_01", "2026_01_21"], clips_per_day=1, frames_per_clip=FRAMES, seed=0)
    write_shards(read_clips(root / "clips"), load_split("pen"), root / "shards", samples_per_shard=5)
    made: dict[str, Cached] = {}

    def make(name: str) -> Cached:
        if name not in made:
            teacher = name if name in shipped_models() else write_random_sam3(name, root / name, seed=0)
            made[name] = Cached(teacher, root / "shards", root / f"{name}-features")
            assert main(["predict", "--config", "cache/pen.yaml", *made[name].options]) == 0
        return made[name]

    return make
