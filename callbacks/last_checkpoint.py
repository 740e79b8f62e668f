"""`last.ckpt` is of the last validation and of the end; `ModelCheckpoint` alone writes it only with a new best.

Source: Lightning 2.6, pytorch/callbacks/model_checkpoint.py, `on_validation_end`: "Only save last checkpoint if a
checkpoint was actually saved in this step". On a plateau a killed run would go back to its best step, each time anew.
"""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn


class LastCheckpoint(Checkpoint):
    """Bring ``last.ckpt`` of every `ModelCheckpoint` with `save_last` up to the step of each validation and of the end.

    Without frames to validate on it is written as often as there would be a validation, at the end of a step. It is a
    `Checkpoint` so that Lightning calls it after the other callbacks, and after a `ModelCheckpoint` listed before it.
    """

    def __init__(self) -> None:
        self._written: dict[Path, int] = {}  # by this callback, at which step
        self._due = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let a run go on with the best that it has, also where its folder was moved or is spelled otherwise.

        `ModelCheckpoint` forgets what was best in a folder of another name, and would write the next model over it.
        """
        states = checkpoint.get("callbacks", {})
        for callback in trainer.checkpoint_callbacks:
            state = states.get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and state and callback.dirpath is not None:
                best = Path(callback.dirpath) / Path(state["best_model_path"]).name
                if state["dirpath"] != callback.dirpath and state["best_model_path"] and best.exists():
                    states[callback.state_key] = _moved(state, callback.dirpath)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier fit, and take what was read for saved.

        Else a `ModelCheckpoint` that saves every n steps would replace a checkpoint by one of the same step, and with
        accumulated gradients by one from within the next.
        """
        self._written.clear()
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                callback._last_global_step_saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write it where a validation is due and there is nothing to validate on."""
        loop, every, epochs = trainer.fit_loop.epoch_loop, trainer.val_check_batch, trainer.check_val_every_n_epoch
        # Batches as Lightning counts them, of an epoch or, without epochs to validate after, of all.
        done = 1 + (loop.total_batch_idx if epochs is None else batch_idx)
        if every is not None and done % every == 0 and (trainer.current_epoch + 1) % (epochs or 1) == 0:
            self._due = True
        if self._due and not loop._should_accumulate():
            self._due = False
            if not any(trainer.num_val_batches):
                self._bring_up(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it where the validation found no new best."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._bring_up(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it: trainings rarely end with a validation."""
        self._bring_up(trainer)

    def _bring_up(self, trainer: Trainer) -> None:
        step = trainer.global_step
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.save_last:
                assert callback.dirpath is not None, "set up"
                path = Path(callback.dirpath) / f"{callback.CHECKPOINT_NAME_LAST}{callback.FILE_EXTENSION}"
                # What it has written itself at this step; another ModelCheckpoint's save says nothing of this file.
                newest = callback._last_global_step_saved, Path(callback._last_checkpoint_saved)
                if (step, path) != newest and self._written.get(path) != step:
                    trainer.save_checkpoint(path, callback.save_weights_only)
                    self._written[path] = step


def _moved(state: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    """Return a `ModelCheckpoint`'s state as if its files had always been in this folder."""

    def here(path: str) -> str:
        return str(Path(folder) / Path(path).name) if path else path

    paths = {name: here(state[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
    kept = {here(path): score for path, score in state["best_k_models"].items()}
    return {**state, **paths, "dirpath": folder, "best_k_models": kept}
