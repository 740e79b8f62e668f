"""The models that travel with the package, each a folder with weights, configuration and model card.

`pl-distill release` makes them. Wherever a SAM 3 is asked for, the name of one stands for its folder.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent


def shipped_models() -> dict[str, Path]:
    """Return the folder of each shipped model by its name, ``pen_teacher``."""
    return {path.parent.name: path.parent for path in sorted(_FOLDER.glob("*/config.json"))}
