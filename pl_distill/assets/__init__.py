"""The models that travel with the package, each a folder with weights, configuration and model card.

`pl-distill release` makes SAM 3s and students, `pl-distill fit` the others. Wherever a model of a kind is asked for,
the name of a shipped one stands for its folder.
"""

import json
from pathlib import Path

_FOLDER = Path(__file__).parent


def shipped_models(*model_types: str) -> dict[str, Path]:
    """Return the folder of each shipped model of some kinds by its name, ``pen_teacher``.

    Args:
        *model_types: What config.json calls them: ``dinov3_vit``; none stands for ``sam3_video``.
    """
    wanted = model_types or ("sam3_video",)
    return {
        path.parent.name: path.parent
        for path in sorted(_FOLDER.glob("*/config.json"))
        if json.loads(path.read_text(encoding="utf-8")).get("model_type") in wanted
    }


def shipped_students() -> dict[str, Path]:
    """Return the folder of each shipped student by its name, ``pen_student``."""
    return {path.parent.name: path.parent for path in sorted(_FOLDER.glob("*/student.json"))}
