"""What jsonargparse says of arguments that it does not take, as errors of ours: which option, and what it wants.

Its messages are matched as text, since its exceptions hold nothing else; one that no pattern knows is passed on.
"""

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pydoc import locate

from datamodules.addresses import without_secrets
from pl_distill.errors import ConfigError

KNOWN = "arguments that the command knows"
TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
RECIPES = {
    "fit": "--config distill/pen.yaml --config trainer/cpu.yaml",
    "predict": "--config cache/pen.yaml",
    "validate": "--config runs/fit/config.yaml",
}
_KEY = re.compile(r'Parser key "([^"]+)":')
_PATH = re.compile(r"- Expected a path but \S+ either not accessible or invalid(?: -)? ")  # any value could be a file
_GIVEN = re.compile(r"(?:Got|Given) value: (.*?)(?: - Expected a | Given value type: |$)")
_OF_CLASS = re.compile(
    r"class_path '([\w.]+)': Option '\w+' is not accepted|is not accepted\. Got value: Namespace\(class_path='([\w.]+)'"
)
_NESTED = re.compile(r".*NestedArg\(key='([^']+)', val='?(.*?)'?\)$")


@dataclass(frozen=True)
class _Said:
    """A message, taken apart.

    Args:
        command: ``pl-distill fit``.
        key: Of the option, ``model.loss``; empty where it is about none.
        given: The value that was refused.
        options: Those that the command has.
    """

    command: str
    key: str
    given: str
    options: list[str]

    @property
    def see(self) -> str:
        """Where the help is."""
        return f"See `{self.command} --help`."


def explain(command: str, message: str, options: Iterable[str] = ()) -> ConfigError:
    """Return the error for a message of jsonargparse.

    Args:
        command: ``pl-distill fit``.
        message: In any number of lines; credentials in it are left out.
        options: Those that the command has, to name one that may be meant.
    """
    text = " ".join(without_secrets(word) for word in message.split()).rstrip(".")
    key, reason, given = _unwrap(text)
    key = key.removeprefix(f"{command.split()[-1]}.")
    said = _Said(command, key, given, list(options))
    for pattern, answer in _ANSWERS:
        found = re.search(pattern, reason)
        if found is not None:
            return answer(found, said)
    return ConfigError(f"--{key}" if key else command, reason, "what its help describes", said.see)


def _unwrap(text: str) -> tuple[str, str, str]:
    """Return whole key, the innermost reason, and the value that was given."""
    nested = _NESTED.match(text)  # the last, which is the outermost
    given = nested[2] if nested else (found[1] if (found := _GIVEN.search(text)) else "")
    keys = list(dict.fromkeys(_KEY.findall(text)))
    key = f"{keys[0]}.{nested[1]}" if keys and nested else ".".join(keys)  # reasons lack what lies between
    reason = _PATH.sub("", _KEY.split(text)[-1]).rpartition("Errors: - ")[2]
    return key, re.sub(r" - Expected a <class 'NoneType'>.*| Given value type: .*", "", reason).strip(), given[:100]


def _required(found: re.Match[str], said: _Said) -> ConfigError:
    verb = said.command.split()[-1]
    names = [name.removeprefix(f"{verb}.") for name in found[1].split(", ")]
    if verb in RECIPES and not said.key and {"model", "data"} & set(names):
        return ConfigError(
            said.command, f"has no {' and no '.join(names)}", f"a recipe, such as {RECIPES[verb]}", said.see
        )
    of_group = {name.partition(".")[0] for name in names if "." in name and f"--{name}" not in said.options}
    if verb not in RECIPES and not said.key and len(of_group) == 1:  # a group asks for what its command needs
        (part,) = of_group
        said = replace(said, command=f"{said.command} {part}")
        names = [name.removeprefix(f"{part}.") for name in names]
    lacking = ", ".join(f"--{said.key}.{name}" if said.key else f"--{name}" for name in names)
    return ConfigError(said.command, f"lacks {lacking}", "every option that has no default", said.see)


def _unknown(found: re.Match[str], said: _Said) -> ConfigError:
    meant = [
        near
        for word in found[1].split()
        if word.startswith("--")
        for near in get_close_matches(word.partition("=")[0], said.options, 1, 0.75)
    ]
    fix = f"Is {' or '.join(meant)} meant? {said.see}" if meant else said.see
    return ConfigError(said.command, found[0], KNOWN, fix)


def _not_taken(found: re.Match[str], said: _Said) -> ConfigError:
    whole = said.key if said.key.rpartition(".")[2] == found[1] else f"{said.key}.{found[1]}".lstrip(".")
    near = get_close_matches(found[1], _parameters_of_the_class(found.string), 1, 0.75)
    fix = f"Is --{whole.removesuffix(found[1])}{near[0]} meant? {said.see}" if near else said.see
    return ConfigError(said.command, f"does not take --{whole}", KNOWN, fix)


def _parameters_of_the_class(reason: str) -> set[str]:
    """Return what the class takes that refused an option; nothing where the reason names none."""
    named = _OF_CLASS.search(reason)
    owner = locate(named[1] or named[2]) if named else None
    if not inspect.isclass(owner):
        return set()
    starts = [vars(base).get("__init__") for base in owner.__mro__]  # options of a parent may go on by **options
    return {name for start in starts if inspect.isfunction(start) for name in inspect.signature(start).parameters}


def _beside(found: re.Match[str], said: _Said) -> ConfigError:
    return ConfigError(
        said.key, f"has more than init_args beside class_path ({said.given})", "arguments below init_args", said.see
    )


def _no_class(found: re.Match[str], said: _Said) -> ConfigError:
    return ConfigError(
        f"--{said.key}", f"is {said.given!r} ({found[1]})", "a class that can be imported", "Check the spelling."
    )


def _wrong_value(found: re.Match[str], said: _Said) -> ConfigError:
    kind = found[1]
    if choices := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
        expected = "one of " + choices[1].replace("'", "")
    else:
        named = re.fullmatch(r"<class '(.*)'>", kind)
        expected = TYPES.get(named[1], named[1]) if named else kind
        if re.match(r"(typing\.|collections\.abc\.)?(list|List|Sequence)\b", expected):
            expected = "a list, such as [a,b]"
    return ConfigError(f"--{said.key}", f"is {said.given!r}", expected, said.see)


def _no_value(found: re.Match[str], said: _Said) -> ConfigError:
    return ConfigError(found[1].rpartition("/")[2], "stands without a value", f"{found[2]} behind it", said.see)


def _no_choice(found: re.Match[str], said: _Said) -> ConfigError:
    names = found["names"].replace("'", "").replace(",", ", ").replace("  ", " ")
    word = found.groupdict().get("word")
    return ConfigError(said.command, f"knows no {word}" if word else "stands alone", f"one of {names}", said.see)


_Answer = Callable[[re.Match[str], _Said], ConfigError]
_ANSWERS: tuple[tuple[str, _Answer], ...] = (
    (r"the following arguments are required: (.+)", _required),
    (r"[Uu]nrecognized arguments: (.+)", _unknown),
    (r"Option 'class_path' is not accepted", _beside),
    (r"Option '([^']+)' is not accepted", _not_taken),
    (r"does not accept option '([^']+)'", _not_taken),
    (r"((?:module '[\w.]+' has no attribute|No module named) '[\w.]+')", _no_class),
    (r"Expected a (.+?)(?: - .*|\. Got value: .*)?$", _wrong_value),
    (r"argument (\S+): expected (one|at least one) argument", _no_value),
    (r'expected "\w+" to be one of \{(?P<names>.*)\}, but it was not provided', _no_choice),
    (r"invalid choice: (?P<word>'.*') \(choose from (?P<names>.*)\)", _no_choice),
)
