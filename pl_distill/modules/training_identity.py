"""What decides what a training learns: kept in its checkpoints, and compared when a run goes on from one.

A resumed optimiser has the learning rate of its checkpoint, whatever the recipe says now; and another teacher, cache or
loss would change in silence what the rest of a run learns. How long a run is, on how many devices and how fast may
change: steps, schedule, devices, precision, workers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim import Optimizer

from pl_distill.errors import CheckpointError, ConfigError

Identity = dict[str, dict[str, Any]]
"""Settings by name, below the key of the recipe that they belong to; plain values."""
_OF_TRAINING_ALONE = ("pretrained", "gradient_checkpointing", "drop_path_rate")  # finished weights answer alike
_KERNELS = ("foreach", "fused", "capturable", "differentiable")  # how an optimiser computes, not what


def loss_settings(loss: nn.Module) -> dict[str, Any]:
    """Return class and settings of a loss as it was built."""
    return {"class": type(loss).__name__, **_plain_ones({k: v for k, v in vars(loss).items() if k != "training"})}


def module_settings(module: nn.Module, names: Sequence[str]) -> Identity:
    """Return those of a module's attributes that are named; dataclasses below keys of their own.

    Raises:
        TypeError: JSON cannot hold one of them.
    """
    found: Identity = {"model": {}}
    for name in names:
        value = getattr(module, name)
        if is_dataclass(value) and not isinstance(value, type):
            found[f"model.{name}"] = {"class": type(value).__name__, **_as_json_gives_it(asdict(value))}
        else:
            found["model"][name] = _as_json_gives_it(value)
    return found


def optimizer_settings(optimizer: Optimizer) -> dict[str, Any]:
    """Return class and arguments of an optimiser as it was built: not its present learning rate."""
    settings = {name: value for name, value in optimizer.defaults.items() if name not in _KERNELS}
    return {"class": type(optimizer).__name__, **_plain_ones(settings)}


def data_settings(datamodule: Any) -> dict[str, Any]:
    """Return what a datamodule tells of what it gives: `data_identity`, or `teacher_trunk_sha256` alone, or nothing."""
    told = {"trunk_sha256": getattr(datamodule, "teacher_trunk_sha256", None)}
    told |= getattr(datamodule, "data_identity", None) or {}
    return _plain_ones({name: value for name, value in told.items() if value is not None and value != {}})


def trainer_settings(trainer: Trainer | None) -> dict[str, Any]:
    """Return how a trainer clips gradients; nothing without one."""
    if trainer is None:
        return {}
    by = trainer.gradient_clip_algorithm or "norm"
    return _plain_ones({"gradient_clip_val": trainer.gradient_clip_val, "gradient_clip_algorithm": by})


def require_average(checkpoint: Mapping[str, Any], trainer: Trainer) -> None:
    """Refuse to train an average further as if it were the weights: the optimiser's moments are those of the weights.

    A run without an average may go on with one.

    Args:
        checkpoint: Its content.
        trainer: Is about to train.

    Raises:
        ConfigError: The checkpoint holds both, and the trainer has no callback that keeps an average.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # is set at run time
    if "current_model_state" in checkpoint and not any(isinstance(one, WeightAveraging) for one in callbacks):
        raise ConfigError(
            str(trainer.ckpt_path),
            "is of weights and of their average",
            "StudentAverage among the callbacks, as in that run",
            "Add --config distill/options/average.yaml as the last.",
        )


def require_same_student(before: Mapping[str, Any], now: Mapping[str, Any], checkpoint: str) -> None:
    """Refuse weights of a student with other settings: some change no tensor, but what the same weights answer.

    Args:
        before: What the checkpoint says, see `Student.describe`; of an older version, what that knew.
        now: What this run says.
        checkpoint: Its path, for the error.

    Raises:
        CheckpointError: Names every setting that differs.
    """
    old, new = before.get("init_args", {}), now["init_args"]
    compared = [name for name in new if name in old and name not in _OF_TRAINING_ALONE]
    if differing := [name for name in compared if old[name] != new[name]]:
        raise CheckpointError(
            checkpoint,
            "is of a student with " + ", ".join(f"{name} {old[name]}" for name in differing),
            ", ".join(f"{name} {new[name]}" for name in differing) + " as the recipe says",
            "Use the recipe of that training, or other weights.",
        )


def require_same_training(before: Mapping[str, Mapping[str, Any]], now: Identity, checkpoint: str) -> None:
    """Refuse to go on with settings by which the run in `checkpoint` was not trained.

    Only what both tell is compared: a checkpoint of a version that told less, or nothing, is taken.

    Args:
        before: What the checkpoint says.
        now: What this run says.
        checkpoint: Its path, for the error.

    Raises:
        ConfigError: Names every setting that differs.
    """
    was, wanted = [], []
    for section in before.keys() & now.keys():
        old, new = before[section], now[section]
        shared = old.keys() & new.keys()
        if old.get("class") != new.get("class"):
            shared = {"class"} & shared  # arguments of different classes have nothing to do with each other
        differing = sorted(name for name in shared if old[name] != new[name])
        was += [f"{section} {name} {_brief(old[name])}" for name in differing]
        wanted += [f"{section} {name} {_brief(new[name])}" for name in differing]
    if was:
        raise ConfigError(
            checkpoint,
            f"is of a run with {', '.join(sorted(was))}",
            f"{', '.join(sorted(wanted))} as in this run",
            "Go on with the old values (the run's config.yaml has them), or train anew: without this checkpoint, in "
            "another --trainer.default_root_dir.",
        )


def is_plain(value: Any) -> bool:
    """Whether a value is a tree of dictionaries, lists and plain values, which a checkpoint holds without pickles."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


def _plain_ones(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that JSON can hold, as it gives them back: a tuple and a list of the same numbers are the same."""
    plain = {}
    for name, value in settings.items():
        if name.startswith("_"):
            continue
        try:
            plain[name] = _as_json_gives_it(value.item() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError, RuntimeError):
            continue
    return plain


def _as_json_gives_it(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_sorted_set))


def _sorted_set(value: Any) -> list[Any]:
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is no plain value")


def _brief(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
