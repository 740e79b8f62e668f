"""The recipes that are shipped, by name.

The one place where this floor reaches for the floor above: recipes travel as the resource package `pl_distill.configs`,
which is named here by its text and not imported.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable


def shipped_recipes(folder: str) -> dict[str, Traversable]:
    """Return the recipes of a folder of `configs`, such as ``splits``, by name and in the order of their names."""
    found = {entry.name: entry for entry in (files("pl_distill.configs") / folder).iterdir()}
    return {name.removesuffix(".yaml"): found[name] for name in sorted(found) if name.endswith(".yaml")}
