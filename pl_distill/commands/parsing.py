"""One way for every verb to read its arguments: signatures are the schema, errors are `ConfigError`.

Recipes are found by path or, where no such file exists, among those that are shipped.
"""

import inspect
from argparse import HelpFormatter
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from jsonargparse import ArgumentParser, auto_cli

from pl_distill.commands.refusals import explain
from pl_distill.errors import ConfigError

CONFIG_OPTIONS = ("--config", "-c")


def recipes_folder() -> Path:
    """Return the folder of the recipes: ``configs/`` of a checkout, or its copy inside the wheel."""
    return Path(str(files("pl_distill.configs")))


def find_recipe(name: str) -> str:
    """Return the path of a recipe: the file itself, or the shipped one of that name (with or without ``configs/``).

    Raises:
        ConfigError: Neither exists, or the file is no text or no YAML.
    """
    if Path(name).is_file():
        _check_yaml(name)
        return name
    shipped = recipes_folder() / name.removeprefix("configs/")
    if shipped.is_file():
        return str(shipped)
    raise ConfigError(
        name, "is no file here and no shipped recipe", f"a path or {_similar_recipes(name)}", "Check the name."
    )


def _check_yaml(name: str) -> None:
    try:
        content = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(name, f"is no text ({error})", "YAML in UTF-8", "Save it as UTF-8.") from error
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ConfigError(name, f"is no YAML ({line}{error.problem})", "a recipe", "Correct it.") from error
    except yaml.YAMLError as error:
        raise ConfigError(name, f"is no YAML ({' '.join(str(error).split())})", "a recipe", "Correct it.") from error
    if not isinstance(content, dict | None):
        raise ConfigError(name, "holds no keys", "a recipe with keys such as model, data and trainer", "Correct it.")


def _similar_recipes(name: str) -> str:
    """Name the shipped recipes of that folder, else those with a similar name, else the folders."""
    root = recipes_folder()
    known = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.yaml"))
    folder = Path(name.removeprefix("configs/")).parent.as_posix()
    near = [one for one in known if Path(one).parent.as_posix() == folder] or get_close_matches(name, known, 5)
    if near:
        return f"one of {', '.join(near)}"
    return f"one of the folders {', '.join(sorted({one.partition('/')[0] for one in known}))}"


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


class CommandParser(ArgumentParser):
    """Raises `ConfigError` for arguments that it does not take, and ends its help with a verb's details and example."""

    details: ClassVar[Mapping[str | None, str]] = {}  # description -> what the docstring says beyond its first line

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})  # a later option may share the beginning

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse the arguments; a parser of a part leaves that to the whole."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise explain(self.prog.replace(" [options]", ""), message, self._option_string_actions)

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
