"""Is the teacher that a training is given the one that made its feature cache?"""

from collections.abc import Sequence
from typing import Any

from pl_distill.errors import ConfigError
from pl_distill.models.sam3 import load_preprocessing, read_trunk_sha256, trunk_settings
from pl_distill.models.sam3_load import load_config

_AS_IT_WAS = "Give the teacher as it was when it made this cache, or run `pl-distill predict` again."


def require_the_caches_teacher(teacher: str, datamodule: Any) -> None:
    """Refuse a teacher whose maps, or whose pictures, would be others than those of the cache in use.

    Args:
        teacher: Folder or hub name.
        datamodule: What it tells of its cache is compared: `teacher_trunk_sha256`, `trunk_settings`, `preprocessing`;
            each None, empty or absent where it does not know.

    Raises:
        ConfigError: The trunk has other weights, computes something else with them, or sees other pictures.
    """
    made_by = getattr(datamodule, "teacher_trunk_sha256", None)
    if made_by is not None and read_trunk_sha256(teacher) != made_by:
        found = f"is {teacher}, whose trunk has another hash than the one that made the cache"
        raise ConfigError("model.teacher", found, f"the teacher with {made_by}", "Give the teacher of this cache.")
    told = getattr(datamodule, "trunk_settings", None) or {}
    now = trunk_settings(load_config(teacher)) if told else {}  # nothing is read that nobody asks for
    if differing := [name for name in now if name in told and now[name] != told[name]]:
        raise ConfigError(
            "model.teacher",
            f"is {teacher}, whose trunk has {', '.join(f'{name} {now[name]}' for name in differing)}",
            f"{', '.join(f'{name} {told[name]}' for name in differing)}, with which the cache was made",
            _AS_IT_WAS,
        )
    cached = getattr(datamodule, "preprocessing", None)
    if cached is not None and (own := load_preprocessing(teacher)) != cached:
        raise ConfigError(
            "model.teacher",
            f"is {teacher}, whose preprocessing is {own.describe()}",
            f"{cached.describe()}, with which the cache was made",
            _AS_IT_WAS,
        )


def require_the_caches_shape(student: Sequence[int], cached: Sequence[int]) -> None:
    """Refuse what the student gives where it was built for a teacher of another shape than the cache's.

    Raises:
        ConfigError: Names both shapes.
    """
    if student != cached:
        raise ConfigError(
            "model.teacher",
            f"has the map {tuple(student)}, which the student was built for",
            f"{tuple(cached)} as in data.cache",
            "Give the teacher that made this cache.",
        )
