"""Pictures that a report carries within itself, as data URLs: frames of the worst clips, and strips of errors."""

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2

from datamodules.clip import Image
from datamodules.errors import ClipError
from datamodules.images import encode_jpeg, read_image
from pl_distill.evaluation.failure_gallery import Gallery, describe
from pl_distill.evaluation.results import ClipResult, Results

MAX_PICTURED_CLIPS = 6

_PICTURE_WIDTH = 720
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class PicturedFrame:
    """One frame as each model saw it: role -> data URL."""

    frame: int
    urls: dict[str, str]


@dataclass(frozen=True)
class Strip:
    """One error on the first page: what happened, in words and in pictures."""

    text: str
    kind: str
    reason: str
    clip: str
    boxes: int
    url: str | None


@dataclass(frozen=True)
class PicturedClip:
    """The pictures of one clip."""

    name: str
    frames: list[PicturedFrame]


def read_strips(folder: Path, gallery: Gallery | None) -> tuple[list[Strip], int]:
    """Read the strips of the most costly errors, as far as they are beside the results, and count the damaged ones."""
    strips, damaged = [], 0
    for failure in [] if gallery is None else gallery.worst:
        url = None
        if failure.strip is not None and (folder / failure.strip).is_file():
            url = _read_url(folder / failure.strip, width=2 * _PICTURE_WIDTH)
            damaged += url is None
        strips.append(Strip(describe(failure), failure.kind, failure.reason, failure.clip, failure.boxes, url))
    return strips, damaged


def read_pictures(folder: Path, results: Results) -> tuple[list[PicturedClip], int]:
    """Read the pictures of the clips with the lowest MOTA of the student (or the only model), the worst first.

    Returns:
        The clips that have some, and how many pictures are damaged and left out.
    """
    judged = list(results.models.values())[-1]

    def score(item: tuple[str, ClipResult]) -> float:
        return float("inf") if item[1].scores.mota is None else item[1].scores.mota

    pictured, damaged = [], 0
    for name, _ in sorted(judged.clips.items(), key=score)[:MAX_PICTURED_CLIPS]:
        frames: dict[int, dict[str, str]] = {}
        for role, model in results.models.items():
            replay = model.clips[name].replay if name in model.clips else None
            for frame, picture in (replay.pictures if replay else {}).items():
                if not (folder / picture).is_file():
                    continue
                url = _read_url(folder / picture)
                if url is None:
                    damaged += 1
                else:
                    frames.setdefault(int(frame), {})[role] = url
        if frames:
            pictured.append(PicturedClip(name, [PicturedFrame(frame, frames[frame]) for frame in sorted(frames)]))
    return pictured, damaged


def _read_url(path: Path, width: int = _PICTURE_WIDTH) -> str | None:
    """Read a picture; None where it is damaged."""
    try:
        return _data_url(read_image(path), width)
    except ClipError:
        return None


def _data_url(image: Image, width: int) -> str:
    if image.shape[1] > width:
        size = (width, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(image.dtype, copy=False)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, _JPEG_QUALITY)).decode("ascii")
