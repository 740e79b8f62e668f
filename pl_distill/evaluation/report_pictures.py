"""Pictures that a report carries within itself, as data URLs: frames of the worst clips, and strips of errors."""

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2

from datamodules.clip import Image
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


def read_strips(folder: Path, gallery: Gallery | None) -> list[Strip]:
    """Read the strips of the most costly errors, as far as they are beside the results in `folder`."""
    strips = []
    for failure in [] if gallery is None else gallery.worst:
        path = None if failure.strip is None else folder / failure.strip
        url = None if path is None or not path.is_file() else _data_url(read_image(path), width=2 * _PICTURE_WIDTH)
        strips.append(Strip(describe(failure), failure.kind, failure.reason, failure.clip, failure.boxes, url))
    return strips


def read_pictures(folder: Path, results: Results) -> list[PicturedClip]:
    """Read the pictures of the clips with the lowest MOTA of the student (or the only model), the worst first."""
    judged = list(results.models.values())[-1]

    def score(item: tuple[str, ClipResult]) -> float:
        return float("inf") if item[1].scores.mota is None else item[1].scores.mota

    pictured = []
    for name, _ in sorted(judged.clips.items(), key=score)[:MAX_PICTURED_CLIPS]:
        frames: dict[int, dict[str, str]] = {}
        for role, model in results.models.items():
            replay = model.clips[name].replay if name in model.clips else None
            for frame, picture in (replay.pictures if replay else {}).items():
                if (folder / picture).is_file():
                    frames.setdefault(int(frame), {})[role] = _data_url(read_image(folder / picture))
        if frames:
            pictured.append(PicturedClip(name, [PicturedFrame(frame, frames[frame]) for frame in sorted(frames)]))
    return pictured


def _data_url(image: Image, width: int = _PICTURE_WIDTH) -> str:
    if image.shape[1] > width:
        size = (width, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(image.dtype, copy=False)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, _JPEG_QUALITY)).decode("ascii")
