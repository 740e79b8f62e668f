"""Tracks of a stream on disk, written as they come: a process that is killed loses at most the frame it was at.

`tracks.txt` is MOTChallenge text. `masks.jsonl` has one line per frame and animal in COCO's format of results
(cocodataset.org/#format-results) with two more keys, `track_id` and `time_s`. `annotated.mp4` shows both.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import cv2
import numpy as np

from datamodules.clip import Frame, Image
from datamodules.masks import encode_mask
from datamodules.video_writer import GrowingVideoWriter
from pl_distill.evaluation.pictures import Canvas, annotate
from pl_distill.evaluation.track_files import write_frame
from pl_distill.streaming.tracked import TrackedFrame

TRACKS, MASKS, VIDEO = "tracks.txt", "masks.jsonl", "annotated.mp4"
_CAMERA_FPS = 25.0  # of a camera that does not say; only the distance of key frames depends on it


class TrackOutput:
    """The files of one stream; a context manager.

    Args:
        folder: Where they go; older ones are replaced.
        fps: Frames per second, None where frames come when they come.
        video: Whether to write the annotated video. It has the size of the first frame; later ones of another size are
            fitted into it.
        masks: Whether to write the masks.
        text: Whether to write the boxes.
    """

    def __init__(
        self, folder: Path, *, fps: float | None, video: bool = True, masks: bool = True, text: bool = True
    ) -> None:
        self.folder = folder
        self._fps = _CAMERA_FPS if fps is None else fps
        self._with_video, self._with_masks, self._with_text = video, masks, text
        self._tracks: TextIO | None = None
        self._masks: TextIO | None = None
        self._video: GrowingVideoWriter | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            # line by line to the system, so that a kill cannot take what was written
            for name in (TRACKS, MASKS, VIDEO):  # an older run's, which this one may not write
                (self.folder / name).unlink(missing_ok=True)
            if self._with_text:
                self._tracks = stack.enter_context((self.folder / TRACKS).open("w", encoding="utf-8", buffering=1))
            if self._with_masks:
                self._masks = stack.enter_context((self.folder / MASKS).open("w", encoding="utf-8", buffering=1))
            self._stack = stack.pop_all()
        return self

    def write(self, frame: Frame, tracks: TrackedFrame) -> None:
        """Append what was tracked in the next frame."""
        if self._tracks is not None:
            write_frame(self._tracks, frame.index, tracks)
        if self._masks is not None:
            write_masks(self._masks, frame, tracks)
        if self._with_video:
            self._draw(frame, tracks)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _draw(self, frame: Frame, tracks: TrackedFrame) -> None:
        height, width = frame.image.shape[:2]
        canvas = Canvas.of(width, height)
        if self._video is None:
            size = {"width": canvas.width, "height": canvas.height}
            self._video = self._stack.enter_context(GrowingVideoWriter(self.folder / VIDEO, fps=self._fps, **size))
        labels = [f"{track} {score:.2f}" for track, score in zip(tracks.ids, tracks.scores, strict=True)]
        caption = f"frame {frame.index}  {frame.timestamp_s:.2f} s"
        picture = annotate(frame.image, tracks, None, canvas, caption, labels)
        self._video.write(_fit(picture, *self._video.shape[:2]), frame.timestamp_s)


def write_masks(file: TextIO, frame: Frame, tracks: TrackedFrame) -> None:
    """Append one line of JSON for each animal of a frame. `image_id` counts frames from 1, as `tracks.txt` does.

    Boxes are left, top, width, height in pixels from 0; masks are COCO's compressed run-length encoding.
    """
    rows = zip(tracks.ids, tracks.boxes_xyxy, tracks.scores, tracks.masks, strict=True)
    for identity, (left, top, right, bottom), score, mask in rows:
        record = {
            "image_id": frame.index + 1,
            "category_id": 1,
            "track_id": int(identity),
            "time_s": round(frame.timestamp_s, 4),
            "score": round(float(score), 4),
            "bbox": [round(float(value), 3) for value in (left, top, right - left, bottom - top)],
            "segmentation": encode_mask(mask),
        }
        file.write(json.dumps(record) + "\n")


def _fit(picture: Image, height: int, width: int) -> Image:
    """Scale a picture into `height` x `width` and fill the rest with black."""
    if picture.shape[:2] == (height, width):
        return picture
    factor = min(height / picture.shape[0], width / picture.shape[1])
    inner = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    fitted = np.zeros((height, width, 3), np.uint8)
    fitted[: inner[1], : inner[0]] = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA)
    return fitted
