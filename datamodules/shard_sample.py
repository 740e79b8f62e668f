"""What one sample of an image shard holds, and its JSON: one frame of a clip with its animals."""

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from datamodules.clip import Annotation, Image
from datamodules.errors import ShardError
from datamodules.json_values import is_number
from datamodules.masks import is_whole_mask

FIELDS = {"clip", "frame", "timestamp_s", "labelled", "identities", "boxes_xyxy", "behaviours", "visible", "masks"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame, decoded.

    Args:
        key: Name of the sample, unique within the data set; see `sample_key`.
        clip: Name of the clip it belongs to.
        index: Number of the frame within the clip, from 0.
        timestamp_s: Seconds since the clip's first frame.
        image: RGB, (H, W, 3) uint8.
        annotation: The animals, or None where nobody labelled this frame.
    """

    key: str
    clip: str
    index: int
    timestamp_s: float
    image: Image
    annotation: Annotation | None


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """All of a sample but its picture; `to_json` and `from_json` are inverse. Fields as in `Sample`."""

    clip: str
    index: int
    timestamp_s: float
    annotation: Annotation | None

    def to_json(self) -> bytes:
        """Write ``{clip, frame, timestamp_s, labelled, identities, boxes_xyxy, behaviours, visible, masks}``."""
        animals = self.annotation
        content = {
            "clip": self.clip,
            "frame": self.index,
            "timestamp_s": self.timestamp_s,
            "labelled": animals is not None,
            "identities": list(animals.identities) if animals else [],
            "boxes_xyxy": animals.boxes_xyxy.tolist() if animals else [],
            "behaviours": list(animals.behaviours) if animals else [],
            "visible": animals.visible.tolist() if animals else [],
            "masks": list(animals.masks) if animals and animals.masks is not None else None,
        }
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, where: str, data: bytes) -> "SampleRecord":
        """Read what `to_json` wrote.

        Raises:
            ShardError: The bytes are not of that form; the message starts with `where`.
        """
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise _wrong(where, f"its JSON cannot be read ({error})", "one JSON object") from error
        if not isinstance(content, dict) or set(content) != FIELDS:
            found = sorted(set(content) ^ FIELDS) if isinstance(content, dict) else type(content).__name__
            raise _wrong(where, f"its JSON differs in {found}", f"the keys {', '.join(sorted(FIELDS))}")
        _check(where, content)
        animals = None
        if content["labelled"]:
            animals = Annotation(
                identities=tuple(content["identities"]),
                boxes_xyxy=np.array(content["boxes_xyxy"], np.float32).reshape(-1, 4),
                behaviours=tuple(content["behaviours"]),
                visible=np.array(content["visible"], bool),
                masks=None if content["masks"] is None else tuple(content["masks"]),
            )
        return cls(content["clip"], content["frame"], float(content["timestamp_s"]), animals)


def key_prefix(clip: str) -> str:
    """Turn a clip's name into the first part of its samples' keys: letters, digits, ``_`` and ``-`` stay."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", clip)


def sample_key(clip: str, index: int) -> str:
    """Name the sample of a clip's frame, ``2019_11_05-000002-f000123``: no dot, which in a tar ends the key."""
    return f"{key_prefix(clip)}-f{index:06d}"


def _check(where: str, content: dict[str, Any]) -> None:
    names, boxes, masks = content["identities"], content["boxes_xyxy"], content["masks"]
    lists = [names, boxes, content["behaviours"], content["visible"], *([] if masks is None else [masks])]
    if not all(isinstance(values, list) for values in lists) or len({len(values) for values in lists}) != 1:
        raise _wrong(where, "identities, boxes_xyxy, behaviours, visible and masks differ in length", "one per animal")
    checks = {
        "clip": isinstance(content["clip"], str),
        "frame": type(content["frame"]) is int and content["frame"] >= 0,
        "timestamp_s": is_number(content["timestamp_s"]),
        "labelled": isinstance(content["labelled"], bool) and (content["labelled"] or not names),
        "identities": all(isinstance(name, str) for name in names) and len(set(map(str, names))) == len(names),
        "boxes_xyxy": all(isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) for box in boxes)
        and all(box[0] < box[2] and box[1] < box[3] for box in boxes),
        "behaviours": all(label is None or isinstance(label, str) for label in content["behaviours"]),
        "visible": all(isinstance(value, bool) for value in content["visible"]),
        "masks": all(is_whole_mask(mask) for mask in masks or []),
    }
    for field, good in checks.items():
        if not good:
            raise _wrong(where, f"its {field} is {str(content[field])[:80]}", "a value as the manifest's schema has it")


def _wrong(where: str, found: str, expected: str) -> ShardError:
    return ShardError(where, found, expected, "Write this shard again with `pl-distill data shards`.")
