"""What a recipe can be told: the options of the model and the data that it names, with its own values as defaults.

Lightning's help lists the trainer's options alone, since it does not know which classes a recipe will name.
"""

from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from pl_distill.commands.parsing import CONFIG_OPTIONS, CommandParser, resolve_recipes
from pl_distill.errors import ConfigError

HELP_OPTIONS = ("--help", "-h")
PARTS = ("model", "data")


def help_of_recipes(args: Sequence[str]) -> str | None:
    """Return the help of a verb's recipes, None where no help is asked for or no recipe names a class.

    Args:
        args: The verb and its options, as on the command line.

    Raises:
        ConfigError: A recipe is not there, names a class that is not, or tells it what it does not take.
    """
    recipes = _recipes_in(resolve_recipes(args)) if set(HELP_OPTIONS) & set(args) else []
    contents = [yaml.safe_load(Path(recipe).read_text(encoding="utf-8")) or {} for recipe in recipes]
    said = {
        part: _merged([content[part] for content in contents if isinstance(content.get(part), dict)]) for part in PARTS
    }
    if all(name is None for name, _ in said.values()):
        return None
    command = " ".join(["pl-distill", args[0], *(f"--config {name}" for name in _recipes_in(args))])
    parser = CommandParser(
        prog=f"pl-distill {args[0]}",
        usage=f"{command} [options]",
        description="Defaults are what the recipes say.",
        epilog=f"The trainer's options: pl-distill {args[0]} --help. All values: {command} --print_config",
        add_help=False,
    )
    for part, (name, values) in said.items():
        if name is not None:
            parser.add_class_arguments(_class_of(name, part), part)
            _show_values(parser, {f"{part}.{key}": value for key, value in values.items()})
    return str(parser.format_help())


def _recipes_in(args: Sequence[str]) -> list[str]:
    """Return what the options for recipes are given, in their order."""
    given = []
    for before, arg in pairwise(["", *args]):
        option, equals, value = arg.partition("=")
        if before in CONFIG_OPTIONS:
            given.append(arg)
        elif equals and option in CONFIG_OPTIONS:
            given.append(value)
    return given


def _merged(parts: Sequence[dict[str, Any]]) -> tuple[str | None, dict[str, Any]]:
    """Lay later recipes over earlier ones; another class begins anew."""
    name: str | None = None
    values: dict[str, Any] = {}
    for part in parts:
        if str(part.get("class_path", name)) != str(name):
            name, values = str(part["class_path"]), {}
        values |= part.get("init_args") or {}
    return name, values


def _show_values(parser: CommandParser, values: dict[str, Any]) -> None:
    """Make a recipe's values the defaults; `fit` itself checks them."""
    for option, value in values.items():
        try:
            parser.set_defaults({option: value})
        except KeyError as error:
            raise ConfigError(
                option, "is in the recipe, and its class takes no such argument", "one that the class documents",
                "Correct the recipe.",
            ) from error  # fmt: skip


def _class_of(name: str, part: str) -> type:
    module, _, attribute = name.rpartition(".")
    try:
        found: type = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{part}.class_path", f"names {name}, which cannot be imported ({error})", "a class", "Check the name."
        ) from error
    return found
