"""Load SAM 3 as it is deployed: strict keys, no text encoder, no geometry encoder.

Source: transformers, `Sam3VideoModel.from_pretrained`. What differs: a missing, unexpected or misshapen tensor is an
error instead of a warning beside random weights, and encoders that nobody asked for are never allocated.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import Sam3ImageProcessor, Sam3VideoConfig, Sam3VideoModel
from transformers.image_utils import PILImageResampling

from datamodules.preprocessing import Preprocessing
from pl_distill.errors import CheckpointError
from pl_distill.models.checkpoints import check_finite
from pl_distill.models.sam3_config import Sam3Geometry
from pl_distill.models.sam3_source import check_source, find_file, quiet_transformers, weight_files

GEOMETRY_ENCODER = "detector_model.geometry_encoder."
TEXT_ENCODER = ("detector_model.text_encoder.", "detector_model.text_projection.")


class _WithText(Sam3VideoModel):  # type: ignore[misc]  # transformers is untyped
    """Drops what box prompts need; transformers builds on the meta device, so that it was never allocated."""

    def __init__(self, config: Sam3VideoConfig) -> None:
        super().__init__(config)
        self.detector_model.geometry_encoder = None
        self._keys_to_ignore_on_load_unexpected = {rf"^{GEOMETRY_ENCODER}"}


class _WithoutText(_WithText):
    """Drops what turns words into embeddings, too: prompts are stored embeddings."""

    def __init__(self, config: Sam3VideoConfig) -> None:
        super().__init__(config)
        self.detector_model.text_encoder = None
        self.detector_model.text_projection = None
        self._keys_to_ignore_on_load_unexpected = {rf"^{name}" for name in (GEOMETRY_ENCODER, *TEXT_ENCODER)}


class _Headless(_WithoutText):
    """Has no trunk and no necks either: a student that covers them follows."""

    def __init__(self, config: Sam3VideoConfig) -> None:
        super().__init__(config)
        vision = self.detector_model.vision_encoder
        vision.backbone = None
        vision.neck = _Weightless(vision.neck)
        self.tracker_neck: Any = _Weightless(vision.neck)  # the same encoding: it has no weights


class _Weightless(nn.Module):
    """What is left of a neck without weights: its position encoding."""

    def __init__(self, neck: Any) -> None:
        super().__init__()
        self.position_encoding = neck.position_encoding


def load_sam3(
    source: str | Path,
    *,
    text_encoder: bool = False,
    trunk: bool = True,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Any:
    """Load a `Sam3VideoModel` for text-prompted streaming, in eval mode.

    Args:
        source: A folder with config.json and safetensors, or a hub name such as ``facebook/sam3``.
        text_encoder: Whether to load the text encoder (353M parameters at real size); only computing prompts needs it.
        trunk: Whether to load trunk and necks; False where the files hold none and a student takes their place.
        dtype: Of every weight, whatever the file's.
        device: Where the weights go.

    Returns:
        The model with ``detector_model.geometry_encoder`` set to None and, unless asked for, the text encoder too.

    Raises:
        CheckpointError: The source is missing or damaged, of another architecture, lacks, adds or reshapes a tensor,
            or has one that is not finite.
    """
    name = check_source(source)
    config = load_config(source)
    files = weight_files(source)
    kind = _WithText if text_encoder else _WithoutText if trunk else _Headless
    with quiet_transformers():
        try:
            model, report = kind.from_pretrained(
                name, config=config, dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True
            )
        except (OSError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(
                name,
                f"cannot be loaded: {str(error).splitlines()[0]}",
                "a SAM 3 video model of transformers",
                "Download or copy it again.",
            ) from error
    _check_keys(name, report, files)
    check_finite(model.state_dict().items(), name)  # position codes are no parameters
    # The three classes above exist for their constructors; from here on it is the stock model, also when it is saved.
    model.__class__ = Sam3VideoModel
    return model.to(device)


def load_config(source: str | Path) -> Sam3VideoConfig:
    """Read config.json of a folder or hub name.

    Raises:
        CheckpointError: There is none, or it is not that of a SAM 3 video model.
    """
    path = find_file(source, "config.json")
    if path is None:
        raise CheckpointError(
            source, "has no config.json", "a folder that `save_pretrained` wrote", "Correct the path."
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(path, "is not JSON", "a configuration of SAM 3", "Copy it again.") from error
    model_type = raw.get("model_type") if isinstance(raw, dict) else None
    if model_type != Sam3VideoConfig.model_type:
        raise CheckpointError(
            path,
            f"describes model_type {model_type!r}" if isinstance(raw, dict) else f"holds a {type(raw).__name__}",
            repr(Sam3VideoConfig.model_type),
            "Give a SAM 3 video model; SAM 2, SAM 3 for single images and students have other classes.",
        )
    try:
        return Sam3VideoConfig.from_pretrained(path.parent)
    except Exception as error:  # transformers has no type of its own for a file that it cannot use
        raise CheckpointError(
            path, f"is refused by transformers ({error})", "a configuration of SAM 3", "Copy it again."
        ) from error


def read_geometry(source: str | Path) -> Sam3Geometry:
    """Read the shapes of a model from its config.json alone."""
    return Sam3Geometry.of(load_config(source))


def load_preprocessing(source: str | Path) -> Preprocessing:
    """Read what happens to a picture before this model sees it, without a tokenizer.

    Raises:
        CheckpointError: The source says nothing about it, or asks for steps that `Preprocessing` does not do.
    """
    name = check_source(source)
    find_file(source, "processor_config.json")  # says so where the repository is gated, or out of reach
    try:
        processor = Sam3ImageProcessor.from_pretrained(name)
    except Exception as error:  # as in `load_config`
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            name,
            f"has neither preprocessor_config.json nor processor_config.json that transformers can read ({reason})",
            "the image processor's settings beside the weights",
            "Copy them from the model's origin.",
        ) from error
    size = processor.size
    if size.height is None or size.height != size.width:
        raise CheckpointError(name, f"resizes to {dict(size)}", "a square", "Use SAM 3's own image processor.")
    steps = {
        "do_resize": (processor.do_resize, True),
        "do_rescale": (processor.do_rescale, True),
        "do_normalize": (processor.do_normalize, True),
        "do_pad": (bool(processor.do_pad), False),
        "resample": (PILImageResampling(processor.resample), PILImageResampling.BILINEAR),
        "rescale_factor": (processor.rescale_factor, 1 / 255),
    }
    for step, (found, expected) in steps.items():
        if found != expected:
            raise CheckpointError(name, f"has {step} {found!r}", repr(expected), "Use SAM 3's own image processor.")
    mean, std = (tuple(float(value) for value in values) for values in (processor.image_mean, processor.image_std))
    return Preprocessing(size=int(size.height), mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))


def trunk_map(model: Any, images: Tensor) -> Tensor:
    """Map images (B, 3, S, S), as `Preprocessing` gives them, to the trunk's (B, C, h, w) in the model's dtype."""
    patch_size = model.config.detector_config.vision_config.backbone_config.patch_size
    tokens = model.detector_model.vision_encoder.backbone(images).last_hidden_state  # (B, h*w, C)
    features: Tensor = tokens.transpose(1, 2).unflatten(2, [side // patch_size for side in images.shape[-2:]])
    return features


def _check_keys(source: str, report: dict[str, Any], files: dict[str, Path]) -> None:
    """Turn transformers' loading report into an error where it would have gone on with random weights."""
    where = ", ".join(sorted({str(path) for path in files.values()})) or source
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            where,
            f"lacks {_some(missing)}",
            "every tensor that config.json asks for",
            "Give the folder with the matching config.json"
            + (", or load without the text encoder." if missing[0].startswith(TEXT_ENCODER) else "."),
        )
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        key, found, expected = mismatched[0]
        raise CheckpointError(
            files.get(key, where),
            f"holds {key} with shape {tuple(found)}" + _more(mismatched),
            f"shape {tuple(expected)} as config.json says",
            "Give the folder with the matching config.json.",
        )
    unexpected = sorted(report["unexpected_keys"])
    if unexpected:
        raise CheckpointError(
            files.get(unexpected[0], where),
            f"holds {_some(unexpected)}",
            "only tensors that config.json asks for",
            "Give the folder with the matching config.json.",
        )


def _some(names: list[str]) -> str:
    return names[0] + _more(names)


def _more(items: list[Any]) -> str:
    return f" and {len(items) - 1} more" if len(items) > 1 else ""
