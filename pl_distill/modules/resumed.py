"""Base of the trainings that go on from a checkpoint only if it is of the same model and the same training."""

from abc import abstractmethod
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn

from pl_distill.models.checkpoints import check_fit
from pl_distill.modules.training_identity import Identity, require_same_training


class ResumedModule(LightningModule):
    """A module whose checkpoints say what decided what it learned, and which refuses to go on with anything else.

    Whoever overrides `configure_optimizers` calls `require_same_training` once the optimiser is built: a checkpoint is
    read before that, or after it, with DeepSpeed, and only what is known by then can be compared.
    """

    def __init__(self) -> None:
        super().__init__()
        self._resumed: Identity = {}  # what the checkpoint says that this fit goes on from

    @property
    @abstractmethod
    def training_identity(self) -> Identity:
        """What decides what is learned, as far as it is known by now."""

    def setup(self, stage: str) -> None:
        """Forget the checkpoint of an earlier fit."""
        self._resumed = {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare names and shapes of a checkpoint's tensors (DeepSpeed compares them itself), and what decided.

        Raises:
            CheckpointError: It is of another architecture.
            ConfigError: A fit would go on with other settings than those that the checkpoint was trained by.
        """
        if self._trainer is None:
            return
        if "state_dict" in checkpoint:
            check_fit(self, checkpoint["state_dict"], str(self._trainer.ckpt_path))
        if self._trainer.state.fn == TrainerFn.FITTING:
            self._resumed = checkpoint.get("training_identity", {})
            self.require_same_training()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember what decides what is learned."""
        checkpoint["training_identity"] = self.training_identity

    def require_same_training(self) -> None:
        """Compare this run with the one that it goes on from, if it goes on from one.

        Raises:
            ConfigError: Names every setting that differs.
        """
        if self._resumed:
            require_same_training(self._resumed, self.training_identity, str(self.trainer.ckpt_path))
