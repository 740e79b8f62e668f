"""Read `output.json` (and the pen's `masks.json`) of one clip in the layout of the Edinburgh Pig Behaviour data set.

Source: homepages.inf.ed.ac.uk/rbf/PIGDATA; Bergamini et al., VISAPP 2021. What real files hold, and what is made of it:

- `frameNumber` counts labelled steps. Video frame = round(frameNumber * stepSize * fps), fps taken from the video: what
  is shown at that time; whole steps would be late by frames in the end. stepSize * fps must be nearly a whole number,
  and the largest labelled frame must lie inside the video, otherwise the clip is refused.
- A frame is labelled when any object has an entry for its step. A step without an entry is unlabelled, not empty:
  annotators skip hundreds of steps, and an empty `objects` list is an untouched clip. Counting such frames as a pen
  without animals would call every right detection a false one.
- An object without an entry on a labelled frame is absent there.
- Several entries of one object for one step: those with `isGroundTruth` win over interpolated ones, then visible
  over hidden ones, then the later over the earlier. Two objects of one id are one animal, by the same rule.
- `isGroundTruth` may be missing (then false), `visible` too (then true), and both may be true, 1 or "1".
- An entry without `bbox` says nothing about where the animal is, and is passed over; the frame counts as labelled.
- A box is cut at the picture's edge; an animal whose box is wholly outside is absent from that frame. Where that
  happens to many, the labels are of another video: the clip is refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.boxes import Box, BoxFitter
from datamodules.clip import RLE, Annotation
from datamodules.errors import AnnotationError
from datamodules.json_values import is_number
from datamodules.masks import encode_mask, is_whole_mask
from datamodules.video import VideoInfo

BEHAVIOURS = (
    "investigating",
    "walk",
    "standing",
    "eat",
    "fight",
    "lying",
    "sleep",
    "nose-to-nose",
    "drink",
    "sitting",
    "run",
    "playwithtoy",
    "nose-poke-elsewhere",
    "jumpontopof",
    "other",
    "chase",
)
"""The raw labels of the data set, as the labelling tool spells them."""

STEP_TOLERANCE = 0.05  # of a frame: rates such as 29.97 and stepSize 0.1 give 2.997, a wrong rate gives halves

Masks = Mapping[int, Mapping[str, RLE]]
"""Labelled step -> animal -> mask."""


class _Entry(NamedTuple):
    """One animal on one step; the order of the fields is the order in which duplicates are preferred."""

    ground_truth: bool
    visible: bool
    position: int  # in the file
    box: Box | None
    behaviour: str | None


def read_output(path: Path, video: VideoInfo, masks: Masks | None = None) -> dict[int, Annotation]:
    """Read a clip's labels.

    Args:
        path: The `output.json`.
        video: Of the clip's `color.mp4`: gives the step between labelled frames and the bounds of the boxes.
        masks: From `read_masks`; every visible animal must have one.

    Returns:
        Video frame index -> animals, for labelled frames only.

    Raises:
        AnnotationError: The file is not JSON, lacks a key it needs, or contradicts the video.
    """
    content = _load(path)
    steps: dict[int, dict[str, _Entry]] = {}
    fitter = BoxFitter(video.width, video.height)
    for object_id, step, entry in _entries(path, content, fitter):
        animals = steps.setdefault(step, {})
        if object_id not in animals or _rank(entry) > _rank(animals[object_id]):
            animals[object_id] = entry
    if not steps:
        return {}
    fitter.check(path)
    if video.pace is not None:
        video.pace.check(path)
    frames_per_step = _frames_per_step(path, content, video)
    indices = {step: round(step * frames_per_step) for step in sorted(steps)}
    last = max(steps)
    if indices[last] >= video.num_frames:
        raise AnnotationError(
            path,
            f"labels frameNumber {last} (of object {next(iter(steps[last]))!r}), which is video frame "
            f"{last} * {frames_per_step:g} = {indices[last]}",
            f"a frame below {video.num_frames}, the length of the video",
            "The video is cut short or belongs to another clip: put the right color.mp4 beside this file.",
        )
    if len(set(indices.values())) < len(indices):
        raise _no_whole_step(path, video, frames_per_step)
    return {index: _annotation(path, step, steps[step], video, masks) for step, index in indices.items()}


def _rank(entry: _Entry) -> tuple[bool | int, ...]:
    """Order the entries of one animal on one step: one without a box is passed over, whoever made it."""
    return (entry.box is not None, *entry[:3])


def read_masks(path: Path, video: VideoInfo) -> Masks:
    """Read a pen's `masks.json`: ``{"schema": 1, "frames": {"<frameNumber>": {"<animal>": RLE}}}``.

    Raises:
        AnnotationError: The file is not JSON, of another schema, or a mask is not of the video's size.
    """
    content = _load(path)
    if content.get("schema") != 1:
        raise AnnotationError(
            path, f"has schema {content.get('schema')!r}", "schema 1", "Draw the pen again with this version."
        )
    masks: dict[int, dict[str, RLE]] = {}
    for step, animals in _mapping(path, "frames", content.get("frames")).items():
        if not step.isdecimal():
            raise AnnotationError(
                path, f"names frame {step!r}", "a whole number", "Write the frameNumber of output.json there."
            )
        masks[int(step)] = {
            animal: _mask(f"{path}, frame {step}, animal {animal!r}", mask, video)
            for animal, mask in _mapping(path, f"frame {step}", animals).items()
        }
    return masks


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number or a nesting beyond all measure
        raise AnnotationError(
            path, f"is not JSON ({error})", "what the labelling tool writes", "Copy or export this file again."
        ) from error
    return _mapping(path, "the file", content)


def _mapping(path: Path, what: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise AnnotationError(path, f"{what} is {_kind(value)}", "a JSON object", "Export this file again.")
    return value


def _list(path: Path, what: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise AnnotationError(path, f"{what} is {_kind(value)}", "a JSON list", "Export this file again.")
    return value


def _mask(where: str, mask: object, video: VideoInfo) -> RLE:
    size = [video.height, video.width]
    if not isinstance(mask, dict):
        raise _bad_mask(where, f"is {_kind(mask)}", size)
    if mask.get("size") != size:
        raise _bad_mask(where, f"has size {mask.get('size')}", size)
    if not is_whole_mask(mask):
        raise _bad_mask(where, "has counts that do not fill its size", size)
    return {"size": size, "counts": mask["counts"]}


def _bad_mask(where: str, found: str, size: list[int]) -> AnnotationError:
    return AnnotationError(where, found, f"a run-length mask of size {size}", "Draw or export the masks again.")


def _frames_per_step(path: Path, content: dict[str, Any], video: VideoInfo) -> float:
    config = content.get("config")
    step_s = content.get("stepSize")
    if step_s is None and isinstance(config, dict):
        step_s = config.get("stepSize")
    if not is_number(step_s) or step_s <= 0:
        raise AnnotationError(
            path, f"has stepSize {step_s!r}", "seconds between labelled frames", "Take it from the labelling tool."
        )
    exact = video.fps * step_s
    if round(exact) < 1 or abs(exact - round(exact)) > STEP_TOLERANCE:
        raise _no_whole_step(path, video, exact)
    return float(exact)


def _no_whole_step(path: Path, video: VideoInfo, exact: float) -> AnnotationError:
    return AnnotationError(
        path,
        f"has stepSize {exact / video.fps:g} s, which at the video's {video.fps:g} frames per second is "
        f"{exact:.3f} frames",
        "a whole number of frames",
        "Use the color.mp4 that was labelled, not one encoded again at another rate.",
    )


def _entries(path: Path, content: dict[str, Any], fitter: BoxFitter) -> "list[tuple[str, int, _Entry]]":
    entries: list[tuple[str, int, _Entry]] = []
    for number, item in enumerate(_list(path, "'objects'", content.get("objects"))):
        record = _mapping(path, f"object number {number}", item)
        object_id = record.get("id")
        if not isinstance(object_id, str | int) or isinstance(object_id, bool):
            raise AnnotationError(
                path, f"object number {number} has id {object_id!r}", "a string", "Give every object an id."
            )
        for raw in _list(path, f"'frames' of object {object_id!r}", record.get("frames")):
            frame = _mapping(path, f"a frame of object {object_id!r}", raw)
            step = frame.get("frameNumber")
            if not is_number(step) or step < 0 or step != int(step):
                raise AnnotationError(
                    path,
                    f"object {object_id!r} has frameNumber {step!r}",
                    "a whole number from 0",
                    "Correct or remove this entry.",
                )
            where = f"{path}, object {str(object_id)!r}, frameNumber {int(step)}"
            entry = _Entry(
                ground_truth=_boolean(where, frame, "isGroundTruth", default=False),
                visible=_boolean(where, frame, "visible", default=True),
                position=len(entries),
                box=_box(where, frame.get("bbox"), fitter),
                behaviour=_behaviour(where, frame.get("behaviour")),
            )
            entries.append((str(object_id), int(step), entry))
    return entries


def _annotation(path: Path, step: int, animals: dict[str, _Entry], video: VideoInfo, masks: Masks | None) -> Annotation:
    present = {animal: entry for animal, entry in animals.items() if entry.box is not None}
    boxes = [entry.box for entry in present.values()]
    return Annotation(
        identities=tuple(present),
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        behaviours=tuple(entry.behaviour for entry in present.values()),
        visible=np.array([entry.visible for entry in present.values()], bool),
        masks=None if masks is None else _animal_masks(path, step, present, video, masks.get(step, {})),
    )


def _animal_masks(
    path: Path, step: int, present: dict[str, _Entry], video: VideoInfo, masks: Mapping[str, RLE]
) -> tuple[RLE, ...]:
    for animal, entry in present.items():
        if animal not in masks and entry.visible:
            raise AnnotationError(
                path.with_name("masks.json"),
                f"has no mask of animal {animal!r} at frameNumber {step}, which output.json shows as visible",
                "one mask per visible animal",
                "Draw the clip again, or remove masks.json to use boxes alone.",
            )
    nothing = encode_mask(np.zeros((video.height, video.width), bool))  # of a hidden animal no pixel is seen
    return tuple(masks.get(animal, nothing) for animal in present)


def _box(where: str, box: object, fitter: BoxFitter) -> Box | None:
    if box is None:
        return None
    values = [box.get(key) if isinstance(box, dict) else None for key in ("x", "y", "width", "height")]
    if not all(is_number(value) for value in values):
        raise AnnotationError(
            where, f"has bbox {box!r}", "numbers x, y, width, height", "Correct or remove this entry."
        )
    left, top, width, height = (float(value) for value in values if value is not None)
    if width <= 0 or height <= 0:
        raise AnnotationError(
            where,
            f"has a box of width {width:g} and height {height:g}",
            "a positive width and height",
            "Draw this box again, or remove the entry.",
        )
    return fitter.cut(left, top, width, height)


def _behaviour(where: str, label: object) -> str | None:
    if label is None or label == "":
        return None
    if label not in BEHAVIOURS:
        raise AnnotationError(
            where,
            f"has behaviour {label!r}",
            f"one of {', '.join(BEHAVIOURS)}",
            "Correct the spelling in output.json.",
        )
    return str(label)


def _boolean(where: str, frame: dict[str, Any], key: str, *, default: bool) -> bool:
    value = frame.get(key)
    if value is None or value == "":
        return default
    known = {"true": True, "1": True, "false": False, "0": False}
    text = str(value).lower()
    if text not in known:
        raise AnnotationError(where, f"has {key} {value!r}", "true, false, 1 or 0", "Correct this entry.")
    return known[text]


def _kind(value: object) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
