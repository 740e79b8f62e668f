"""Whether what is being trained will fit the device that it is meant for."""

import logging
from typing import Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.peak_vram import PeakVRAM
from callbacks.resumed_curves import last_step
from datamodules.errors import UserError
from pl_distill.deploy.budget import STUDENT, predict
from pl_distill.deploy.envelope import Verdict, check, load_envelope
from pl_distill.deploy.recipe import BudgetRecipe, teacher_config
from pl_distill.errors import ConfigError
from pl_distill.evaluation.memory import held_bytes
from pl_distill.modules.distillation import DistillationModule

log = logging.getLogger(__name__)

Action = Literal["warn", "fail"]


class JetsonEnvelope(Callback):
    """Compare a student's system with a device: predicted at the start of a fit, measured at the end of a run.

    At the start the whole deployed system is predicted (`pl-distill budget`; some seconds). At the end the largest
    memory of the run's own inference (validation, test, prediction) is compared, as PeakVRAM measured it: on a GPU what
    the allocator held, on a CPU the resident set. After a fit it holds the training, too, the optimiser's states and
    the batch, which no device will see: it is told, and never ends the run. Logs `envelope/predicted_gib`,
    `envelope/measured_gib` and `envelope/headroom_gib`, the least of both.

    Args:
        device: A shipped profile, such as orin-nx-16gb, or a YAML file.
        action: Whether what does not fit is a warning, or ends the run with an error.
        animals: That shall be tracked at a time.
        precision: Of the deployed system.
    """

    def __init__(
        self,
        device: str = "orin-nx-16gb",
        action: Action = "warn",
        animals: int = 8,
        precision: Literal["bf16", "fp16", "fp32"] = "fp16",
    ) -> None:
        self.envelope = load_envelope(device)
        self.action = action
        self.animals = animals
        self.precision = precision
        self._headroom_gib: list[float] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that somebody has measured by the time that this one compares.

        Raises:
            ConfigError: PeakVRAM is not there, or comes behind and ends its phase too late.
        """
        self._headroom_gib = []
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        measuring = [place for place, one in enumerate(callbacks) if isinstance(one, PeakVRAM)]
        expected = "callbacks.peak_vram.PeakVRAM before JetsonEnvelope"
        if not measuring:
            raise ConfigError("trainer.callbacks", "has nobody who measures memory", expected, "Add it.")
        if measuring[0] > callbacks.index(self):
            raise ConfigError("trainer.callbacks", "has PeakVRAM behind JetsonEnvelope", expected, "Exchange them.")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict, on the first process; all of them learn what comes out.

        Raises:
            UserError: The module distils no teacher, or that tells no configuration: on all processes, or the others
                would wait for the first.
        """
        if not isinstance(pl_module, DistillationModule):
            found = f"is used in a fit of {type(pl_module).__name__}"
            raise ConfigError("JetsonEnvelope", found, "DistillationModule", "Take it out of trainer.callbacks.")
        verdict: Verdict | UserError | None = None
        if trainer.is_global_zero:
            try:
                recipe = BudgetRecipe("this run", pl_module, pl_module.teacher, teacher_config(pl_module.teacher), 1)
                budget = predict(recipe, self.animals, 2, [self.precision], training=False, systems=(STUDENT,))
                verdict = budget.verdict(self.envelope, self.precision)
            except UserError as error:
                verdict = error
        shared = trainer.strategy.broadcast(verdict)
        assert shared is not None, "the first process has predicted"
        if isinstance(shared, UserError):
            raise shared
        self._judge(trainer, "predicted", shared, self.action)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what was measured."""
        self._measured(trainer, "warn")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare what was measured, where validation is the run."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._measured(trainer, self.action)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare what was measured."""
        self._measured(trainer, self.action)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare what was measured."""
        self._measured(trainer, self.action)

    def _measured(self, trainer: Trainer, action: Action) -> None:
        (monitor, *_) = [one for one in trainer.callbacks if isinstance(one, PeakVRAM)]  # type: ignore[attr-defined]
        phases = {phase: peaks for phase, peaks in monitor.peaks_bytes.items() if phase != "fit"}
        if not phases:
            return
        parts = {phase: held_bytes(peaks) for phase, peaks in phases.items()}
        # Every process has the same phases in the same order, and judges the largest of all of them alike.
        here = torch.tensor(list(parts.values()), dtype=torch.int64, device=trainer.strategy.root_device)
        everyone = trainer.strategy.all_gather(here).reshape(-1, len(parts)).amax(0).tolist()
        parts = dict(zip(parts, map(int, everyone), strict=True))
        largest = max(parts, key=lambda phase: parts[phase])
        self._judge(trainer, "measured", check(self.envelope, {largest: parts[largest]}), action)

    def _judge(self, trainer: Trainer, how: str, verdict: Verdict, action: Action) -> None:
        self._headroom_gib.append(verdict.headroom_gib)
        metrics = {f"envelope/{how}_gib": verdict.needed_gib, "envelope/headroom_gib": min(self._headroom_gib)}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=last_step(trainer))
        if action == "fail":
            verdict.enforce()
        (log.info if verdict.fits else log.warning)("%s: %s", how, verdict)
