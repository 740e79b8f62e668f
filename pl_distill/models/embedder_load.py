"""Load an embedder: shipped, of transformers, or of timm.

What differs from both libraries: a missing, unexpected or misshapen tensor is an error.
"""

from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file

from datamodules.crops import Cropping
from pl_distill.assets import shipped_models
from pl_distill.errors import CheckpointError
from pl_distill.models.checkpoints import check_finite, load_strictly
from pl_distill.models.dinov3 import FAMILY, TIMM_FAMILY, TimmBackbone, TransformersBackbone
from pl_distill.models.embedder import Embedder, PatchHead
from pl_distill.models.embedder_files import (
    HEAD,
    find_file,
    read_cropping,
    read_json,
    read_preprocessing,
    unreadable,
)
from pl_distill.models.sam3_source import is_hub_name, quiet_transformers

PEN_EMBEDDER = "pen_embedder"


def load_embedder(
    source: str | Path = PEN_EMBEDDER, device: torch.device | str = "cpu", cropping: Cropping | None = None
) -> Embedder:
    """Load an embedder, frozen, in float32.

    Args:
        source: A shipped one (``pen_embedder``); a folder with config.json and model.safetensors, of transformers or
            timm; a hub name of either (``facebook/dinov3-vits16-pretrain-lvd1689m``,
            ``timm/vit_small_patch16_dinov3.lvd1689m``); or timm's own name (``vit_small_patch16_dinov3``).
        device: Where it shall run.
        cropping: How animals are cut out for it; None takes what is stored beside it, or the default.

    Raises:
        CheckpointError: There is no such thing, it is damaged, of another family, or its tensors do not fit or are not
            finite.
    """
    name = str(source)
    shipped = shipped_models(*FAMILY)
    if not Path(name).is_dir():
        if name in shipped:
            name = str(shipped[name])
        elif timm.is_model(name) and TIMM_FAMILY in name:
            return _load_timm(name, name, cropping or Cropping()).to(device)
        elif not is_hub_name(name):
            raise CheckpointError(
                name,
                "is no folder",
                "a folder with config.json and model.safetensors, a hub name, a DINOv3 of timm, or a shipped embedder: "
                + (", ".join(shipped) or "none"),
                "Correct the path.",
            )
    config = read_json(name, "config.json")
    if config is None:
        raise CheckpointError(name, "has no config.json", "an embedder's folder or hub name", "Correct the path.")
    cropping = read_cropping(name) if cropping is None else cropping
    if config.get("model_type") in FAMILY:
        return _load_transformers(name, str(config["model_type"]), cropping).to(device)
    if TIMM_FAMILY in str(config.get("architecture")):
        return _load_timm(f"local-dir:{name}" if Path(name).is_dir() else f"hf-hub:{name}", name, cropping).to(device)
    raise CheckpointError(
        f"{name}/config.json",
        f"describes {config.get('model_type') or config.get('architecture')!r}",
        f"model_type {' or '.join(FAMILY)}, or a timm architecture with {TIMM_FAMILY!r}",
        "Give a DINOv3.",
    )


def _load_transformers(name: str, model_type: str, cropping: Cropping) -> Embedder:
    config_class, model_class = FAMILY[model_type]
    try:
        config = config_class.from_pretrained(name)
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                name, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except Exception as error:  # transformers has no type of its own for values that it cannot use
        raise unreadable(name, error) from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(report[problem])
        if keys:
            first = keys[0] if isinstance(keys[0], str) else keys[0][0]
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            found = {"missing_keys": "lacks", "unexpected_keys": "has the unknown", "mismatched_keys": "reshapes"}
            raise CheckpointError(
                name, f"{found[problem]} {first}{more}", "the tensors that config.json asks for", "Copy it again."
            )
    check_finite(model.state_dict().items(), name)
    image_size, mean, std = read_preprocessing(name, config.image_size)
    architecture = {key: getattr(config, key) for key in _SHAPES if hasattr(config, key)}
    backbone = TransformersBackbone(model)
    head = _read_head(name, backbone, image_size)
    dimension = backbone.dimension if head is None else head.out_features // 2
    return Embedder(backbone, architecture, dimension, image_size, cropping, mean, std, head)


_SHAPES = (
    "model_type",
    "patch_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "rope_theta",
    "num_register_tokens",
    "use_gated_mlp",
    "hidden_sizes",
    "depths",
)
"""What of a configuration changes the function of the network beside its weights."""


def _load_timm(spelled: str, name: str, cropping: Cropping) -> Embedder:
    try:
        model = timm.create_model(spelled, pretrained=True, num_classes=0)
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        SafetensorError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
    ) as error:
        raise unreadable(name, error) from error
    check_finite(model.state_dict().items(), name)
    settings: dict[str, Any] = model.pretrained_cfg
    architecture = {"timm": str(settings.get("architecture", name)).split(".")[0]}
    size = int(settings["input_size"][-1])
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    return Embedder(TimmBackbone(model), architecture, int(model.num_features), size, cropping, mean, std)


def _read_head(name: str, backbone: TransformersBackbone, image_size: int) -> PatchHead | None:
    path = find_file(name, HEAD)
    if path is None:
        return None
    try:
        tensors = {key: tensor.float() for key, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise unreadable(f"{name}/{HEAD}", error) from error
    with torch.inference_mode():
        _, patches = backbone(torch.zeros(1, 3, image_size, image_size))
    outputs = tensors["bias"].shape[0] if "bias" in tensors and tensors["bias"].ndim == 1 else 2
    head = PatchHead(patches[0].numel(), outputs // 2)
    load_strictly(head, tensors, f"{name}/{HEAD}")
    return head
