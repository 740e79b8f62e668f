"""Errors that a user can cause and mend: each says where, what was found, what is expected, what to do.

The console script prints them without a traceback and exits with 1. Anything else that escapes is a defect of ours.
"""

from pathlib import Path


class UserError(Exception):
    """A mistake in what the user gave us.

    Args:
        where: The file, sample or config key, in the user's own names.
        found: What is there, as the rest of a sentence that starts with `where`: ``"has 3 labels"``.
        expected: What should be there, after the word "expected": ``"9 labels"``.
        fix: One sentence in the imperative that says what to do.
    """

    def __init__(self, where: str | Path, found: str, expected: str, fix: str) -> None:
        self.where = str(where)
        self.found = found
        self.expected = expected
        self.fix = fix
        super().__init__(f"{where}: {found}, expected {expected}. {fix}")

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str, str, str]]:
        """Cross process borders whole: the default would call the constructor with the message alone."""
        return type(self), (self.where, self.found, self.expected, self.fix)


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
