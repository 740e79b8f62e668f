"""One way for every verb to read its arguments: signatures are the schema, errors are `ConfigError`.

Recipes are found by path or, where no such file exists, among those that are shipped.
"""

import inspect
import re
from argparse import HelpFormatter
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from jsonargparse import ArgumentParser, auto_cli

from pl_distill.errors import ConfigError

KNOWN = "arguments that the command knows"
CONFIG_OPTIONS = ("--config", "-c")


def shipped_recipes() -> Path:
    """Return the folder of the recipes: ``configs/`` of a checkout, or its copy inside the wheel."""
    return Path(str(files("pl_distill.configs")))


def find_recipe(name: str) -> str:
    """Return the path of a recipe: the file itself, or the shipped one of that name (with or without ``configs/``).

    Raises:
        ConfigError: Neither exists, or the file is no text.
    """
    if Path(name).is_file():
        try:
            Path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(name, f"is no text ({error})", "YAML in UTF-8", "Save it as UTF-8.") from error
        return name
    shipped = shipped_recipes() / name.removeprefix("configs/")
    if shipped.is_file():
        return str(shipped)
    known = sorted(str(path.relative_to(shipped_recipes())) for path in shipped_recipes().rglob("*.yaml"))
    raise ConfigError(
        name, "is no file here and no shipped recipe", f"a path or one of {', '.join(known)}", "Check --config."
    )


def resolve_recipes(args: Sequence[str]) -> list[str]:
    """Replace the value of each ``--config`` by the path of the recipe that it names."""
    resolved: list[str] = []
    for position, arg in enumerate(args):
        option, equals, value = arg.partition("=")
        if equals and option in CONFIG_OPTIONS:
            resolved.append(f"{option}={find_recipe(value)}")
        elif position and args[position - 1] in CONFIG_OPTIONS:
            resolved.append(find_recipe(arg))
        else:
            resolved.append(arg)
    return resolved


def refuse(parser: ArgumentParser, message: str) -> NoReturn:
    """Say that `parser` does not take its arguments, instead of printing its usage and exiting with 2.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        parser.prog.replace(" [options]", ""),
        _reason(message),
        KNOWN,
        f"See `{parser.prog.replace(' [options]', '')} --help`.",
    )


def _reason(message: str) -> str:
    """Join the lines of a message; of an error below a class path keep the key and the error itself.

    jsonargparse quotes the whole configuration there, and that it is not None either.
    """
    text = " ".join(message.split()).rstrip(".")
    inner = re.match(rf"""(Parser key "[^"]+": ).*?Errors: - (?:\S+: )?(.*?)\.?, expected {KNOWN}\.""", text)
    if inner is None:
        return text
    if inner[2].startswith("Option 'class_path' is not accepted"):  # true of what stands beside it
        given = re.search(rf"Given value: (.*?)(?:, expected {KNOWN}|$)", text)
        return f"{inner[1]}only init_args may stand beside class_path, not as in {given[1][:300] if given else 'this'}"
    return inner[1] + inner[2]


class CommandParser(ArgumentParser):
    """Raises `ConfigError` for arguments that it does not take, and ends its help with a verb's details and example."""

    details: ClassVar[Mapping[str | None, str]] = {}  # description -> what the docstring says beyond its first line

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse the arguments."""
        refuse(self, message)

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """Return the help; jsonargparse takes only the first line of a docstring."""
        text: str = super().format_help(formatter)
        details = self.details.get(self.description)
        return f"{text}\n{details}\n" if details else text


def run_function(verb: str, function: Callable[..., Any] | dict[str, Callable[..., Any]], args: Sequence[str]) -> None:
    """Parse `args` by the signature of `function` (or of the one that the first word chooses) and call it."""
    functions = list(function.values()) if isinstance(function, dict) else [function]
    documented = [(inspect.getdoc(one) or "").partition("\n\nArgs:")[0].partition("\n") for one in functions]

    examples = [" ".join(rest.partition("Example: ")[2].split()) for _, _, rest in documented]

    class Parser(CommandParser):
        details: ClassVar[Mapping[str | None, str]] = {
            **{head: rest.strip() for head, _, rest in documented},
            None: "\n".join(["Examples:", *examples]),  # of a group, which has no docstring
        }

    auto_cli(
        function,  # type: ignore[arg-type]  # the annotation is narrower than what the library takes
        args=resolve_recipes(args),
        prog=f"pl-distill {verb}",
        as_positional=False,
        parser_class=Parser,
    )
