"""All processes of a run go on from one checkpoint, or none does."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from pl_distill.errors import ConfigError


class SameCheckpoint(Callback):
    """Refuse a fit whose processes have found different checkpoints.

    Each looks for ``last`` by itself, before they meet: another training may have ended in between, and a file system
    of several machines may show a new file to one of them later. Some would train from a step that others never saw.

    Attributes:
        found: What this process has found, None without one; told before the fit.
    """

    def __init__(self) -> None:
        self.found: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare with what the first process has found."""
        if stage != "fit":
            return
        mine = str(self.found)
        first = trainer.strategy.broadcast(mine)
        if not trainer.strategy.reduce_boolean_decision(mine == first, all=True):
            raise ConfigError(
                "--ckpt_path", f"is {mine} in process {trainer.global_rank} and {first} in the first",
                "the same in all", "Start again, once the folder has come to rest.",
            )  # fmt: skip
