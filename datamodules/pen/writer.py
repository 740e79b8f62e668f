"""Writes drawn clips in the Edinburgh layout, with masks.

``<out>/<YYYY_MM_DD>/<NNNNNN>/`` holds

- `color.mp4`: the pictures.
- `background.png`: the empty pen of that day.
- `output.json`: boxes and behaviours of every labelled step, as the labelling tool of the data set writes them. As
  there, an `id` is unique within its clip only.
- `masks.json`: ``{"schema": 1, "frames": {"<frameNumber>": {"<id>": RLE}}, "furniture": {"feeder": {"<frameNumber>":
  RLE}, "toy": {...}}}`` with the frame numbers of `output.json`. RLE is COCO's compressed run-length encoding
  ``{"size": [height, width], "counts": text}``. Masks show what is seen: what hides entirely has none.
- `scene.json`: ``{"schema": 1, "sha256", "seed", "clip", "frames", "config": {...}, "animals": {"<id>": {"name",
  "length_m"}}}``, where animals are lame also ``"vigour": {"<name>": ...}``; a name is the same in every clip of a pen.
  `sha256` covers everything that decides the pictures.

A clip is whole or absent: it is drawn in a hidden folder beside the days and renamed at the end. Several processes may
draw into one folder: each clip has a lock in ``<out>/.locks/``.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from datamodules.clip import RLE, Image
from datamodules.errors import UserError
from datamodules.files import atomic_path, sync_directory, temporary_path, write_json
from datamodules.locks import held
from datamodules.masks import encode_mask
from datamodules.pen.config import PenConfig
from datamodules.pen.frame import FURNITURE, PenFrame
from datamodules.pen.renderer import PenRenderer
from datamodules.pen.seeds import generator
from datamodules.pen.simulation import simulate
from datamodules.splits import parse_day
from datamodules.video_writer import VideoWriter

SCENE = "scene.json"
_FILES = ("color.mp4", "background.png", "output.json", "masks.json", SCENE)


def draw_pen(
    out: str | Path,
    config: PenConfig,
    *,
    days: Sequence[str],
    clips_per_day: int,
    frames_per_clip: int,
    seed: int,
    vigour: Mapping[str, float] | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Path]:
    """Draw clips of one pen; finished clips of the same configuration and seed are kept.

    Args:
        out: Folder that gets the day folders.
        config: The domain.
        days: Days ``YYYY_MM_DD``: the same animals on other straw.
        clips_per_day: Clips a day, numbered from 000000.
        frames_per_clip: Pictures a clip.
        seed: Decides everything that the configuration leaves open.
        vigour: Lame animals, see `simulate`. The days before they went lame are drawn by a call without it.
        progress: Called with the number of pictures finished since the last call, those of kept clips included.

    Returns:
        The clips' folders, in the order of days and numbers.

    Raises:
        UserError: A day is none, a number is not positive, a vigour is impossible, or a folder in the way was not
            drawn by this function.
    """
    out = Path(out)
    for name, value in (("clips_per_day", clips_per_day), ("frames_per_clip", frames_per_clip)):
        if value < 1:
            raise UserError(f"pen '{config.domain}', {name}", f"is {value}", "at least 1", "Give a positive number.")
    for day in days:
        parse_day(f"pen '{config.domain}', days", day)
    clips = [f"{day}/{number:06d}" for day in sorted(set(days)) for number in range(clips_per_day)]
    for clip in clips:
        if _is_drawn(out / clip, config, clip, seed, frames_per_clip, vigour):
            kept = True
        else:
            with held(out / ".locks" / f"{_flat(clip)}.lock", wait=True):  # another process may draw it meanwhile
                kept = _is_drawn(out / clip, config, clip, seed, frames_per_clip, vigour)
                if not kept:
                    _draw_clip(out, config, clip, seed, frames_per_clip, vigour, progress)
        if kept and progress is not None:
            progress(frames_per_clip)
    return [out / clip for clip in clips]


def scene_sha256(
    config: PenConfig, clip: str, seed: int, frames: int, vigour: Mapping[str, float] | None = None
) -> str:
    """Hash of everything that decides a clip's pictures; of sound animals what it was before any could be lame."""
    content: dict[str, Any] = {"config": config.sha256, "clip": clip, "seed": seed, "frames": frames}
    if vigour:
        content["vigour"] = dict(vigour)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_drawn(
    folder: Path, config: PenConfig, clip: str, seed: int, frames: int, vigour: Mapping[str, float] | None
) -> bool:
    if not folder.exists():
        return False
    try:
        scene = json.loads((folder / SCENE).read_text(encoding="utf-8"))
        drawn = scene["sha256"]
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        if not folder.exists():  # another process is just replacing it
            return False
        raise UserError(
            folder,
            f"exists without a {SCENE} of a drawn clip",
            "a folder that may be replaced",
            "Choose another output folder, or remove this one.",
        ) from error
    return drawn == scene_sha256(config, clip, seed, frames, vigour) and all(
        (folder / name).is_file() for name in _FILES
    )


def _draw_clip(
    out: Path, config: PenConfig, clip: str, seed: int, frames: int, vigour: Mapping[str, float] | None,
    progress: Callable[[int], object] | None,
) -> None:  # fmt: skip
    """Draw one clip beside the days and put it in its place when it is whole; for who holds the clip's lock."""
    partial = temporary_path(out / _flat(clip))
    for rest in out.glob(f".{_flat(clip)}.partial-*"):  # of a drawing that was killed
        shutil.rmtree(rest)
    partial.mkdir()
    try:
        _write_clip(partial, config, clip, seed, frames, vigour, progress)
        target = out / clip
        target.parent.mkdir(exist_ok=True)
        old = out / f".{_flat(clip)}.partial-old"
        if target.exists():  # drawn by another configuration: `_is_drawn` refused everything else
            target.replace(old)  # whole: what a kill leaves of a half deleted one could not be told from a recording
        partial.replace(target)
        sync_directory(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _flat(clip: str) -> str:
    return clip.replace("/", "-")


def _write_clip(
    folder: Path, config: PenConfig, clip: str, seed: int, frames: int, vigour: Mapping[str, float] | None,
    progress: Callable[[int], object] | None,
) -> None:  # fmt: skip
    renderer = PenRenderer(config, seed, day=clip.partition("/")[0], clip=clip)
    numbers = generator(seed, clip, "ids").choice(range(1, 1000), len(renderer.herd), replace=False)
    ids = {body.name: str(number) for body, number in zip(renderer.herd, numbers, strict=True)}
    labels = _Labels(ids)
    with VideoWriter(
        folder / "color.mp4", fps=config.fps, width=config.width, height=config.height, crf=config.crf
    ) as video:
        for state in simulate(config, seed, frames, clip, vigour):
            frame = renderer.render(state)
            video.write(frame.image)
            if state.index % config.label_every == 0:
                labels.add(state.index // config.label_every, frame)
            if progress is not None:
                progress(1)
    _write_png(folder / "background.png", renderer.background)
    _write_compact(folder / "output.json", labels.output(config, clip))
    _write_compact(folder / "masks.json", labels.masks())
    animals = {ids[body.name]: {"name": body.name, "length_m": round(body.length_m, 4)} for body in renderer.herd}
    scene = {
        "schema": 1,
        "sha256": scene_sha256(config, clip, seed, frames, vigour),
        "seed": seed,
        "clip": clip,
        "frames": frames,
    }
    lame = {"vigour": dict(vigour)} if vigour else {}
    write_json(folder / SCENE, {**scene, **lame, "config": asdict(config), "animals": animals})


class _Labels:
    """Collects what `output.json` and `masks.json` hold.

    Args:
        ids: Name of an animal -> its id in this clip.
    """

    def __init__(self, ids: Mapping[str, str]) -> None:
        self._ids = ids
        self._objects: dict[str, list[dict[str, Any]]] = {number: [] for number in ids.values()}
        self._masks: dict[str, dict[str, RLE]] = {}
        self._furniture: dict[str, dict[str, RLE]] = {name: {} for name in FURNITURE}

    def add(self, step: int, frame: PenFrame) -> None:
        """Take over one labelled frame."""
        masks = self._masks[str(step)] = {}
        for name, box, behaviour, visible, mask in zip(
            frame.names, frame.boxes_xyxy, frame.behaviours, frame.visible, frame.masks, strict=True
        ):
            left, top, right, bottom = (int(value) for value in box)
            self._objects[self._ids[name]].append(
                {
                    "frameNumber": step,
                    "bbox": {"x": left, "y": top, "width": right - left, "height": bottom - top},
                    "isGroundTruth": True,
                    "visible": bool(visible),
                    "behaviour": behaviour,
                }
            )
            if mask.any():
                masks[self._ids[name]] = encode_mask(mask)
        for name, mask in frame.furniture_masks.items():
            if mask.any():
                self._furniture[name][str(step)] = encode_mask(mask)

    def output(self, config: PenConfig, clip: str) -> dict[str, Any]:
        """The content of `output.json`."""
        step_s = config.label_every / config.fps
        return {
            "videoFileName": "color.mp4",
            "fullVideoFilePath": f"{clip}/",
            "stepSize": step_s,
            "config": {
                "stepSize": step_s,
                "playbackRate": 0.4,
                "imageMimeType": "image/jpeg",
                "imageExtension": ".jpg",
            },
            "objects": [{"id": number, "frames": frames} for number, frames in self._objects.items() if frames],
        }

    def masks(self) -> dict[str, Any]:
        """The content of `masks.json`."""
        return {"schema": 1, "frames": self._masks, "furniture": self._furniture}


def _write_compact(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def _write_png(path: Path, image: Image) -> None:
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
