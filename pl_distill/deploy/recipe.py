"""What a budget needs of a recipe: its module, the teacher's shapes, the batch; read without weights or data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import LightningModule
from transformers import Sam3VideoConfig

from pl_distill.errors import ConfigError
from pl_distill.models.sam3 import Necks, Sam3Geometry, load_config, load_sam3_config, shipped_configs
from pl_distill.models.student_io import Student

REAL_TEACHER = "facebook/sam3"  # gated: its shapes are in configs/sam3/real.yaml


@dataclass(frozen=True, eq=False)
class BudgetRecipe:
    """A distillation recipe.

    Args:
        name: File.
        module: A `DistillationModule`, without networks.
        teacher: Name of the SAM 3.
        config: Its shapes.
        batch_size: Images per step and device.
    """

    name: str
    module: Any
    teacher: str
    config: Sam3VideoConfig
    batch_size: int

    @property
    def pyramids(self) -> bool:
        """Whether the student answers with both pyramids."""
        return bool(self.module.target == "pyramids")

    def fill_module(self) -> Any:
        """Give the module a student that trains and the teacher's necks, on the meta device, and return it."""
        geometry = Sam3Geometry.of(self.config)
        with torch.device("meta"):
            student: Student = self.module.build_student(
                out_channels=geometry.neck_channels if self.pyramids else geometry.trunk_channels, grid=geometry.grid
            )
            necks = Necks(self.config).requires_grad_(False).eval()
        self.module.adopt(student, necks)
        return self.module


def read_recipe(path: str | Path, teacher: str | None = None) -> BudgetRecipe:
    """Read a recipe of `pl-distill fit`.

    Args:
        path: YAML file with ``model`` and ``data``.
        teacher: A SAM 3 (folder, shipped model, `facebook/sam3`) or a shipped configuration such as ``real``; None
            takes the recipe's.

    Raises:
        ConfigError: It is no such recipe, names no teacher, or has a batch that is no number.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(
            path, f"is not YAML ({error})", "a recipe of `pl-distill fit`", "Correct the file."
        ) from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not str(model.get("class_path", "")).endswith("DistillationModule"):
        expected = "a recipe of `pl-distill fit` with a DistillationModule"
        raise ConfigError(path, "distils no student", expected, "Give configs/distill/edinburgh.yaml, for instance.")
    arguments = model["init_args"] = _mapping(path, "model.init_args", model.get("init_args"))
    named = teacher or arguments.get("teacher")
    if named is None:
        raise ConfigError(path, "names no teacher", "the SAM 3 whose trunk is replaced", "Give --teacher.")
    arguments["teacher"] = named
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    try:
        module = parser.instantiate(parser.parse_object({"model": model})).model
    except (ArgumentError, ValueError, TypeError) as error:
        found = f"is refused: {' '.join(str(error).split())[:300]}"
        raise ConfigError(path, found, "arguments of a DistillationModule", "Correct the recipe.") from error
    data = _mapping(path, "data", content.get("data"))
    batch_size = _mapping(path, "data.init_args", data.get("init_args")).get("batch_size", 1)
    if type(batch_size) is not int or batch_size < 1:
        raise ConfigError(
            f"{path}, data.init_args.batch_size",
            f"is {batch_size!r}",
            "a whole number from 1 on",
            "Correct the recipe.",
        )
    return BudgetRecipe(str(path), module, named, teacher_config(named), batch_size)


def _mapping(path: str | Path, key: str, value: Any) -> dict[str, Any]:
    """Return a part of a recipe, empty where it is left out or null."""
    if not isinstance(value, dict | None):
        raise ConfigError(f"{path}, {key}", f"is {value!r}", "keys and values", "Correct the recipe.")
    return value or {}


def teacher_config(name: str) -> Sam3VideoConfig:
    """Return the shapes of a SAM 3: a shipped configuration's, a folder's, or those of `facebook/sam3`."""
    if name == REAL_TEACHER:
        return load_sam3_config("real")
    return load_sam3_config(name) if name in shipped_configs() else load_config(name)
