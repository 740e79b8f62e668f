"""Learning rates over a run."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from lightning.pytorch import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pl_distill.errors import ConfigError


def trapezoid(step: int, total: int, *, warmup: int, cooldown: float) -> float:
    """Return the learning rate's factor at `step`: up linearly, constant, then down to 0 over the last part.

    A run whose end is not known yet can be stopped and resumed with another `total` before the descent without having
    trained otherwise (arXiv 2405.18392); a cosine cannot.

    Args:
        step: From 0.
        total: Steps in all.
        warmup: Steps of the rise.
        cooldown: Part of `total` that the descent takes, 0-1; it follows 1 - sqrt, the best of that paper.
    """
    if step < warmup:
        return (step + 1) / warmup
    start = total * (1 - cooldown)
    if step < start:
        return 1.0
    return 1 - math.sqrt(min(1.0, (step - start) / max(total - start, 1)))


def check_part(option: str, value: float, *, whole: str) -> None:
    """Refuse a number that is no part of `whole`: a warmup of 200 was meant as steps.

    Raises:
        ConfigError: It is not between 0 and 1.
    """
    if not 0 <= value <= 1:  # nor is NaN
        raise ConfigError(option, f"is {value}", f"a part of {whole}, 0 to 1", "Give a fraction.")


def check_steps(option: str, value: int) -> None:
    """Refuse a negative number of steps.

    Raises:
        ConfigError: It is one.
    """
    if value < 0:
        raise ConfigError(option, f"is {value}", "a number of steps from 0", "Give 0 for none.")


def total_steps(trainer: Trainer) -> int:
    """Return the optimiser steps of the whole run, from which schedules are computed.

    Not `estimated_stepping_batches`: with `max_epochs` it builds the loader before a checkpoint says where the epoch
    goes on, and a resumed run would train on batches that it has seen.

    Raises:
        ConfigError: The trainer has no `max_steps`.
    """
    if trainer.max_steps < 1:
        expected = "a number of optimiser steps, from which the schedules are computed"
        fix = "Set trainer.max_steps; trainer.max_epochs alone does not do."
        raise ConfigError("trainer.max_steps", f"is {trainer.max_steps}", expected, fix)
    return trainer.max_steps


def trapezoid_schedule(trainer: Trainer, optimizer: Optimizer, *, warmup: int, cooldown: float) -> dict[str, Any]:
    """Return what `configure_optimizers` returns, with the trapezoid over the trainer's `max_steps`.

    Raises:
        ConfigError: The trainer has no `max_steps`.
    """
    return _stepwise(optimizer, partial(trapezoid, total=total_steps(trainer), warmup=warmup, cooldown=cooldown))


def cosine_schedule(trainer: Trainer, optimizer: Optimizer, *, warmup: float, final: float) -> dict[str, Any]:
    """Return the same with `warmup_cosine`.

    Raises:
        ConfigError: The trainer has no `max_steps`.
    """
    return _stepwise(optimizer, partial(warmup_cosine, total=total_steps(trainer), warmup=warmup, final=final))


def _stepwise(optimizer: Optimizer, factor: Callable[[int], float]) -> dict[str, Any]:
    # A lambda is not saved: a run that is resumed with more steps gets the longer schedule.
    scheduler = _Schedule(optimizer, lambda step: factor(step))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class _Schedule(LambdaLR):
    """Where a checkpoint is read, the next step already has the rate of this run's schedule, which may be longer."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up; the optimiser, whose state is read before, brings the rate of the schedule that was saved."""
        super().load_state_dict(state_dict)
        groups = zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True)
        for group, highest, factor in groups:
            group["lr"] = highest * factor(self.last_epoch)


def warmup_cosine(step: int, total: int, warmup: float, final: float) -> float:
    """Return the learning rate's factor at `step` of `total`.

    Args:
        step: Optimiser steps done.
        total: Optimiser steps in all.
        warmup: Part of `total` in which the factor rises linearly to 1.
        final: Where the half cosine after it ends.
    """
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    done = min(1.0, (step - rise) / max(1, total - rise))
    return final + (1 - final) * (0.5 + 0.5 * math.cos(math.pi * done))
