"""A strip of pictures for an error: the same place before, during and after it, with tracks and truth drawn in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clip import RLE, Annotation, Clip, Frame, Image
from datamodules.files import atomic_path
from datamodules.images import encode_jpeg
from datamodules.masks import decode_masks
from pl_distill.evaluation.failures import Failure
from pl_distill.evaluation.pictures import Canvas, annotate
from pl_distill.evaluation.track_files import NO_BOXES, Tracks

MAX_STRIPS = 60
"""Of each clip and model, for the most costly errors."""

CELL = 200
"""Side of one picture, pixels."""

MARK = (255, 45, 45)
_AROUND_S = 0.5
_GAP = 4
_TEXT = 0.42
_JPEG_QUALITY = 72

Masks = Mapping[int, Mapping[int, RLE]]
"""Frame -> track -> mask."""


@dataclass(frozen=True)
class _Window:
    """The square of a clip that a strip shows, pixels."""

    left: int
    top: int
    side: int

    def boxes(self, boxes_xyxy: NDArray[np.floating]) -> NDArray[np.float32]:
        """Move boxes (N, 4) into the cell."""
        moved = (boxes_xyxy - np.array([self.left, self.top] * 2)) * (CELL / self.side)
        return np.asarray(moved, np.float32)

    def cut(self, picture: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
        """Cut out a picture (H, W, ...) and scale it to the cell."""
        part = picture[self.top : self.top + self.side, self.left : self.left + self.side]
        return np.asarray(cv2.resize(part, (CELL, CELL), interpolation=interpolation), np.uint8)

    def shows(self, boxes_xyxy: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Say of each box (N, 4) whether a part of it is inside."""
        left, top, right, bottom = boxes_xyxy.T
        shown: NDArray[np.bool_] = (
            (right > self.left) & (bottom > self.top) & (left < self.left + self.side) & (top < self.top + self.side)
        )
        return shown


@dataclass(frozen=True, eq=False)
class _Drawn:
    ids: tuple[int, ...]
    boxes_xyxy: NDArray[np.float32]
    masks: NDArray[np.bool_]


def write_strips(
    clip: Clip, failures: Sequence[Failure], tracks: Tracks, masks: Masks, frames: int, root: Path, folder: Path
) -> list[Failure]:
    """Draw the errors of one clip; its pictures are decoded once.

    White boxes are truth (dotted: hidden), coloured outlines are tracks with their identities; a red box marks the
    animal, or the false track, that the strip is about.

    Args:
        clip: What was tracked.
        failures: Its errors, the most costly first.
        tracks: Boxes of the tracks.
        masks: Their masks.
        frames: How many frames were tracked.
        root: Folder of the results, to which the paths are relative.
        folder: Where the JPEG files go.

    Returns:
        The errors, those that were drawn with the path of their strip.
    """
    drawn = list(failures[:MAX_STRIPS])
    wanted = [strip_frames(failure, clip.fps, frames) for failure in drawn]
    windows = [_window(clip, failure, tracks, shown) for failure, shown in zip(drawn, wanted, strict=True)]
    cells: list[list[Image]] = [[] for _ in drawn]
    last = max((shown[-1] for shown in wanted), default=-1)
    for frame in clip.frames():
        if frame.index > last:
            break
        for failure, shown, window, row in zip(drawn, wanted, windows, cells, strict=True):
            if frame.index in shown:
                row.append(_cell(frame, failure, tracks, masks, window))
    done = []
    for number, (failure, row) in enumerate(zip(drawn, cells, strict=True)):
        stem = clip.name.replace("/", "-")
        path = folder / f"{stem}-{number:03d}-{failure.kind.replace(' ', '-')}-f{failure.first_frame:06d}.jpg"
        with atomic_path(path) as temporary:
            temporary.write_bytes(encode_jpeg(_join(row), _JPEG_QUALITY))
        done.append(replace(failure, strip=path.relative_to(root).as_posix()))
    return [*done, *failures[MAX_STRIPS:]]


def strip_frames(failure: Failure, fps: float, frames: int) -> list[int]:
    """Choose the frames of a strip: half a second before, the first, the middle and the last one, half a second after.

    Args:
        failure: What is shown.
        fps: Of the clip.
        frames: How many frames there are.
    """
    around = max(1, round(_AROUND_S * fps))
    first, last = failure.first_frame, failure.last_frame
    chosen = {first - around, first, (first + last) // 2, last, last + around}
    return sorted({min(max(index, 0), frames - 1) for index in chosen})


def _window(clip: Clip, failure: Failure, tracks: Tracks, shown: Sequence[int]) -> _Window:
    boxes = [np.array(failure.box_xyxy)]
    boxes += [
        box for index in shown if (box := _subject(clip.annotations.get(index), failure, tracks, index)) is not None
    ]
    low, high = np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]
    most = min(clip.width, clip.height)
    side = int(np.clip(1.6 * max(high - low), most / 4, most))
    left, top = ((low + high - side) / 2).round().astype(int)
    return _Window(int(np.clip(left, 0, clip.width - side)), int(np.clip(top, 0, clip.height - side)), side)


def _subject(truth: Annotation | None, failure: Failure, tracks: Tracks, index: int) -> NDArray[np.float32] | None:
    """Return the box (4,) of what a strip is about in a frame."""
    ids: list[Any]
    wanted: int | str | None
    if failure.kind == "false track":
        found = tracks.get(index, NO_BOXES)
        ids, boxes, wanted = list(found.ids), found.boxes_xyxy, failure.tracks[0]
    elif truth is not None:
        ids, boxes, wanted = list(truth.identities), truth.boxes_xyxy, failure.animal
    else:
        return None
    return np.asarray(boxes[ids.index(wanted)]) if wanted in ids else None


def _cell(frame: Frame, failure: Failure, tracks: Tracks, masks: Masks, window: _Window) -> Image:
    found, of_frame = tracks.get(frame.index, NO_BOXES), masks.get(frame.index, {})
    rows = [row for row in np.flatnonzero(window.shows(found.boxes_xyxy)) if found.ids[row] in of_frame]
    cut = [
        window.cut(decode_masks([of_frame[found.ids[row]]])[0].astype(np.uint8), cv2.INTER_NEAREST).astype(bool)
        for row in rows
    ]
    shown = _Drawn(
        tuple(found.ids[row] for row in rows),
        window.boxes(found.boxes_xyxy[rows]),
        np.stack(cut) if cut else np.zeros((0, CELL, CELL), bool),
    )
    truth = frame.annotation
    moved = None if truth is None else replace(truth, boxes_xyxy=window.boxes(truth.boxes_xyxy), masks=None)
    picture = annotate(
        window.cut(frame.image, cv2.INTER_AREA if window.side > CELL else cv2.INTER_CUBIC),
        shown,
        moved,
        Canvas(1, CELL, CELL),
        f"{frame.timestamp_s:.2f} s",
        text_scale=_TEXT,
    )
    box = _subject(truth, failure, tracks, frame.index)
    if box is not None:
        left, top, right, bottom = (round(float(value)) for value in window.boxes(box[None])[0])
        cv2.rectangle(picture, (left, top), (right, bottom), MARK, 2)
    return picture


def _join(cells: Sequence[Image]) -> Image:
    """Put pictures side by side with a white gap."""
    strip = np.full((CELL, len(cells) * (CELL + _GAP) - _GAP, 3), 255, np.uint8)
    for number, cell in enumerate(cells):
        left = number * (CELL + _GAP)
        strip[:, left : left + CELL] = cell
    return strip
