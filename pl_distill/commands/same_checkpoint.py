"""All processes of a run go on from one checkpoint, or none does."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from pl_distill.errors import ConfigError


class SameCheckpoint(Callback):
    """Refuse a fit whose processes have found different checkpoints, or read them at different steps.

    Each looks for ``last`` by itself, before they meet: another training may have ended in between, and a file system
    of several machines may show a new file to one of them later, or still an older one under the name that is always
    the same. Some would train from a step that others never saw.

    Attributes:
        found: What this process has found, None without one; told before the fit.
    """

    def __init__(self) -> None:
        self.found: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare with what the first process has found."""
        if stage == "fit":
            _require_same(trainer, str(self.found))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare what was read."""
        _require_same(trainer, f"at step {trainer.global_step} of epoch {trainer.current_epoch}")


def _require_same(trainer: Trainer, mine: str) -> None:
    first = trainer.strategy.broadcast(mine)
    if not trainer.strategy.reduce_boolean_decision(mine == first, all=True):
        raise ConfigError(
            "--ckpt_path", f"is {mine} in process {trainer.global_rank} and {first} in the first",
            "the same in all", "Start again, once the folder has come to rest.",
        )  # fmt: skip
