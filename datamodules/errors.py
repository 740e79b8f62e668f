"""Errors that a user can cause and mend: each says where, what was found, what is expected, what to do.

The console script prints them without a traceback and exits with 1. Anything else that escapes is a defect of ours.
"""

from pathlib import Path
from typing import overload


class UserError(Exception):
    """A mistake in what the user gave us.

    A `DataLoader` raises the error of a worker anew, from its type and the text of its traceback alone: with
    ``message=`` where a class has that attribute (torch/_utils.py, `ExceptionWrapper`). Ours keeps its last entry, so
    that the message is the same as without workers.

    Args:
        where: The file, sample or config key, in the user's own names.
        found: What is there, as the rest of a sentence that starts with `where`: ``"has 3 labels"``.
        expected: What should be there, after the word "expected": ``"9 labels"``.
        fix: One sentence in the imperative that says what to do.
        message: Instead of the four, which then stay empty: what a worker's error said, perhaps below its traceback.
    """

    @overload
    def __init__(self, where: str | Path, found: str, expected: str, fix: str) -> None: ...

    @overload
    def __init__(self, *, message: str) -> None: ...

    def __init__(
        self, where: str | Path = "", found: str = "", expected: str = "", fix: str = "", message: str | None = None
    ) -> None:
        self.where = str(where)
        self.found = found
        self.expected = expected
        self.fix = fix
        if message is None:
            message = f"{where}: {found}, expected {expected}. {fix}"
        name = f"{type(self).__module__}.{type(self).__qualname__}"  # as `traceback` prints it
        super().__init__(message.rpartition(f"\n{name}: ")[2].strip())

    @property
    def message(self) -> str:
        """The whole sentence."""
        return str(self)

    def __reduce__(self) -> tuple[object, ...]:
        """Cross process borders whole: the default would call the constructor with the message alone."""
        return _rebuild, (type(self), self.message, self.where, self.found, self.expected, self.fix)


def _rebuild(kind: type[UserError], message: str, where: str, found: str, expected: str, fix: str) -> UserError:
    error = kind(message=message)
    error.where, error.found, error.expected, error.fix = where, found, expected, fix
    return error


class DataError(UserError):
    """Something on disk is not what its layout promises."""


class ClipError(DataError):
    """A clip's video or image sequence is missing, truncated or of an unexpected form."""


class AnnotationError(DataError):
    """A clip's annotation contradicts its layout or its video."""


class ShardError(DataError):
    """A shard, or the manifest beside it, is missing, damaged or contradicts the other."""


class CacheError(DataError):
    """Cached teacher features are incomplete, damaged or belong to another teacher, preprocessing or image set."""


class SplitError(DataError):
    """A split leaves a clip without a part, or puts one into two."""
