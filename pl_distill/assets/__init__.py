"""The models that travel with the package, each a folder with weights, configuration and model card.

`pl-distill release` makes the SAM 3s, `pl-distill fit` the others. Wherever a model of a kind is asked for, the name of
a shipped one stands for its folder.
"""

import json
from pathlib import Path

_FOLDER = Path(__file__).parent


def shipped_models(model_type: str = "sam3_video") -> dict[str, Path]:
    """Return the folder of each shipped model of a kind by its name, ``pen_teacher``.

    Args:
        model_type: What config.json calls it: ``sam3_video``, ``dinov3_vit`` (embedders).
    """
    return {
        path.parent.name: path.parent
        for path in sorted(_FOLDER.glob("*/config.json"))
        if json.loads(path.read_text(encoding="utf-8")).get("model_type") == model_type
    }
