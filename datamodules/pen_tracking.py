"""The drawn pen as a data module: it draws its pens and writes its shards once, then it is a `TrackingDataModule`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datamodules.pen_training import PenShare, draw_pens, plan_pens, read_pens_with_furniture, remember_plan
from datamodules.shard_manifest import FILE
from datamodules.shards import write_shards
from datamodules.tracking import TrackingDataModule


class PenTrackingDataModule(TrackingDataModule):
    """Draws pens into a folder, unless they are there, and feeds them as labelled windows.

    Args:
        folder: Gets ``clips/`` in the Edinburgh layout, ``shards/``, and ``pens.json``, which says what they are; all
            are kept and reused. Where there are several nodes, all have to see it: one draws.
        train: Pens to train on.
        val: Pens to validate on.
        frames_per_pen: Length of each pen's clip.
        first_seed: Seed of the first pen; the others count on from it, up to 999,999.
        processes: How many pens are drawn at a time.
        **options: As for `TrackingDataModule`, but for ``shards``.

    Raises:
        UserError: The pens need seeds or domains that are kept for evaluation.
    """

    def __init__(
        self,
        folder: str,
        train: Sequence[PenShare],
        val: Sequence[PenShare],
        frames_per_pen: int = 40,
        first_seed: int = 1000,
        processes: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(shards=str(Path(folder) / "shards"), **options)
        self.prepare_data_per_node = False
        self.folder = Path(folder)
        self.pens, self.split = plan_pens(train, val, first_seed)
        self.frames_per_pen = frames_per_pen
        self.processes = processes

    def prepare_data(self) -> None:
        """Draw what is missing, and write shards unless they are there.

        Raises:
            UserError: The folder holds other pens.
        """
        remember_plan(self.folder, self.pens, frames_per_pen=self.frames_per_pen)
        if (self.folder / "shards" / FILE).is_file():
            return
        clips = self.folder / "clips"
        with tqdm(total=len(self.pens), desc="draw pens", unit="pen") as bar:

            def advance(pens: int) -> None:
                bar.update(pens)

            draw_pens(clips, self.pens, frames_per_pen=self.frames_per_pen, processes=self.processes, progress=advance)
        write_shards(read_pens_with_furniture(clips), self.split, self.folder / "shards")
