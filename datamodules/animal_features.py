"""What an embedder said about every animal of a set of clips, on disk: computed once, read by every training.

A folder holds one safetensors file a clip and ``features.json``: ``{"schema": 2, "embedder": {"source", "identity",
"dimension"}, "boxes": "truth" | "tracks", "clips": {"<clip>": {"file", "day", "fps", "width", "height", "rows",
"animals": [names], "sha256"}}}``. A file holds one row per animal and frame, by animal and then by frame: `frame`
(M,) int32; `animal` (M,) int32, index into `animals`; `boxes_xyxy` (M, 4) float32; `lies` (M, 6) float32, as `LIE`;
`behaviour` (M,) int16, index into `BEHAVIOURS`, -1 where unknown; `features` (M, F) float16, class token beside the
mean of the patch tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from datamodules.errors import CacheError
from datamodules.files import atomic_path, sha256_of, write_json

MANIFEST = "features.json"
SCHEMA = 2


@dataclass(frozen=True, eq=False)
class AnimalFeatures:
    """The animals of one clip; M rows, by animal and then by frame.

    Args:
        clip: Name of the clip.
        day: Its recording day.
        fps: Frames per second of the video.
        width: Of a frame in pixels.
        height: Of a frame in pixels.
        animals: Names, unique within the clip.
        frame: Number of the video frame, (M,), int32.
        animal: Index into `animals`, (M,), int32.
        boxes_xyxy: Pixels, (M, 4), float32.
        lies: How each lies in the picture, (M, len(LIE)), float32: see `datamodules.lies`.
        behaviour: Index into `BEHAVIOURS`, -1 where unknown, (M,), int16.
        features: What the embedder gave, (M, F), float16.
    """

    clip: str
    day: str
    fps: float
    width: int
    height: int
    animals: tuple[str, ...]
    frame: NDArray[np.int32]
    animal: NDArray[np.int32]
    boxes_xyxy: NDArray[np.float32]
    lies: NDArray[np.float32]
    behaviour: NDArray[np.int16]
    features: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.frame)


def file_of(clip: str) -> str:
    """Return the name of a clip's file."""
    return f"{clip.replace('/', '-')}.safetensors"


def write_features(folder: Path, features: AnimalFeatures) -> dict[str, Any]:
    """Write one clip and return its entry of the manifest."""
    content = {
        "frame": features.frame,
        "animal": features.animal,
        "boxes_xyxy": features.boxes_xyxy,
        "lies": features.lies,
        "behaviour": features.behaviour,
        "features": features.features,
    }
    path = folder / file_of(features.clip)
    with atomic_path(path) as temporary:
        save_file({name: np.ascontiguousarray(values) for name, values in content.items()}, temporary)
    return {
        "file": path.name,
        "day": features.day,
        "fps": features.fps,
        "width": features.width,
        "height": features.height,
        "rows": len(features),
        "animals": list(features.animals),
        "sha256": sha256_of(path),
    }


def write_manifest(folder: Path, header: Mapping[str, Any], clips: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``features.json``."""
    write_json(folder / MANIFEST, {"schema": SCHEMA, **header, "clips": dict(sorted(clips.items()))})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read ``features.json``.

    Raises:
        CacheError: It is absent, damaged or of another schema.
    """
    path = folder / MANIFEST
    fix = "Give the folder of `pl-distill embed`, or run it again."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CacheError(path, "is not there", "the features of some clips", fix) from error
    except ValueError as error:
        raise CacheError(path, f"is not JSON ({error})", "the features of some clips", fix) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise CacheError(path, "is of another schema", f"schema {SCHEMA}", fix)
    return content


def read_features(folder: Path, clip: str, entry: Mapping[str, Any]) -> AnimalFeatures:
    """Read one clip.

    Raises:
        CacheError: Its file is absent, damaged, or not the one that the manifest names.
    """
    path = folder / str(entry["file"])
    fix = "Run `pl-distill embed` again."
    try:
        if path.parent != folder or sha256_of(path) != entry["sha256"]:
            raise CacheError(path, "is not the file that the manifest names", "its SHA-256", fix)
        content = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CacheError(path, f"cannot be read ({error})", "the features of a clip", fix) from error
    return AnimalFeatures(
        clip,
        str(entry["day"]),
        float(entry["fps"]),
        int(entry["width"]),
        int(entry["height"]),
        tuple(entry["animals"]),
        content["frame"],
        content["animal"],
        content["boxes_xyxy"],
        content["lies"],
        content["behaviour"],
        content["features"],
    )
