"""Dataclasses from JSON, checked against their annotations, so that a wrong file is refused by the name of its key.

Covers what results hold: numbers, strings, None, lists, mappings with string keys, nested dataclasses and unions with
None. Unknown keys are passed over: a newer file may say more.
"""

from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class JsonTypeError(Exception):
    """A value is not of the annotated type.

    Args:
        key: Where, with dots between the levels.
        found: What is there, as the rest of a sentence.
        expected: What should be there.
    """

    def __init__(self, key: str, found: str, expected: str) -> None:
        self.key, self.found, self.expected = key, found, expected
        super().__init__(f"{key} {found}, expected {expected}")


def parse_dataclass(cls: type[T], content: Any, key: str) -> T:
    """Build a `cls` from decoded JSON.

    Args:
        cls: A dataclass.
        content: What `json.load` gave.
        key: Name of the place, for messages.

    Raises:
        JsonTypeError: A key is missing or holds another type.
    """
    if not isinstance(content, dict):
        raise JsonTypeError(key, f"is {_name(content)}", "a mapping")
    hints = get_type_hints(cls)
    values = {}
    for field in fields(cls):  # type: ignore[arg-type]  # a TypeVar cannot say that it is a dataclass
        inner = f"{key}.{field.name}" if key else field.name
        if field.name in content:
            values[field.name] = _parse(hints[field.name], content[field.name], inner)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise JsonTypeError(inner, "is missing", "a value")
    return cls(**values)


def _parse(kind: Any, content: Any, key: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if content is None and NoneType in arguments:
            return None
        (kind,) = (argument for argument in arguments if argument is not NoneType)
        return _parse(kind, content, key)
    if kind is Any:
        return content
    if origin is dict:
        if not isinstance(content, dict):
            raise JsonTypeError(key, f"is {_name(content)}", "a mapping")
        return {name: _parse(arguments[1], value, f"{key}.{name}") for name, value in content.items()}
    if origin is list:
        if not isinstance(content, list):
            raise JsonTypeError(key, f"is {_name(content)}", "a list")
        return [_parse(arguments[0], value, f"{key}[{index}]") for index, value in enumerate(content)]
    if is_dataclass(kind):
        return parse_dataclass(kind, content, key)  # type: ignore[arg-type]  # is_dataclass narrows to an instance too
    if kind is float and type(content) is int:
        return float(content)
    if type(content) is not kind:
        raise JsonTypeError(key, f"is {_name(content)}", {int: "a whole number", float: "a number"}.get(kind, "a text"))
    return content


def _name(content: Any) -> str:
    if content is None:
        return "null"
    if isinstance(content, dict):
        return "a mapping"
    if isinstance(content, list):
        return "a list"
    return repr(content)
