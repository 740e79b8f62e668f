"""One curve over all starts of a run: what a crashed start logged beyond its last checkpoint is not shown."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]  # no annotations


def last_step(trainer: Trainer) -> int:
    """Return the number of the last step that was made, 0 before the first.

    Under it Lightning logs the scalars of a validation. What is logged under the step to come is dropped where a run
    goes on from the checkpoint of that validation.
    """
    return max(0, trainer.global_step - 1)


class ResumedCurves(Callback):
    """Tell TensorBoard at which step a run goes on; it then drops the events of that step and later ones.

    All starts write into one folder. After a crash the steps since the last checkpoint are made again, and without
    this their values would be drawn twice.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the mark, on the first process."""
        if trainer.is_global_zero and trainer.global_step > 0:
            mark = Event(step=trainer.global_step, session_log=SessionLog(status=SessionLog.START))
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.file_writer.add_event(mark, trainer.global_step)
