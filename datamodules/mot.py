"""Read sequences in the layout of MOTChallenge, so that other farms' data goes the same way as ours.

Source: motchallenge.net; Dendorfer et al., MOT20, arXiv 2003.09003, section 4. ``<sequence>/`` holds `seqinfo.ini`, the
pictures in `img1/` and, where truth is public, `gt/gt.txt`; sequences may lie one folder deeper (`train/`, `test/`).
What is made of it:

- A line of `gt.txt` is ``frame, id, left, top, width, height, consider`` and then either ``class, visibility``
  (9 columns, since MOT16) or three world coordinates (10 columns, MOT15), which are not read. Frames and pixels count
  from 1, so one is subtracted from frame, left and top.
- ``consider`` 0 marks a box that is no target, such as a reflection: it is left out, and a track on it is a false one.
  The class is not looked at: MOTChallenge marks everything but its target with 0, and farm data has one species.
- ``visibility`` 0 means hidden: an animal that may be found or not, neither is an error. Boxes are cut at the picture's
  edge, those wholly outside are absent; where that happens to many, the labels are of other pictures: the sequence is
  refused.
- With a `gt.txt` every frame is labelled, also those without a line: that is how MOTChallenge scores. Without, none is.
- The day comes from a key that MOTChallenge lacks, ``day=2026_01_31`` in `seqinfo.ini`, or from a date in the
  sequence's name (``barn3-2026-01-31-cam2``, ``20260131_07``). Without a day a sequence cannot be split: it is refused.
"""

import configparser
import csv
import math
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datamodules.boxes import Box, BoxFitter
from datamodules.clip import Annotation, Clip
from datamodules.errors import AnnotationError, ClipError
from datamodules.images import ImageFiles, read_image

DATE = re.compile(r"(?<!\d)(\d{4})[-_]?(\d{2})[-_]?(\d{2})(?!\d)")


def find_mot_sequences(root: Path) -> list[Path]:
    """List the folders with a `seqinfo.ini`: `root` itself, its children and theirs, sorted."""
    return sorted(file.parent for pattern in ("", "*/", "*/*/") for file in root.glob(f"{pattern}seqinfo.ini"))


def read_mot(root: str | Path) -> list[Clip]:
    """Read every sequence at or below `root`; pictures are decoded only when iterated.

    Raises:
        ClipError: There is no sequence, or its `seqinfo.ini` or pictures are incomplete.
        AnnotationError: `gt.txt` contradicts its format or the sequence.
    """
    root = Path(root)
    sequences = find_mot_sequences(root) if root.is_dir() else []
    if not sequences:
        raise ClipError(
            root,
            "holds no sequence in the MOTChallenge layout",
            "folders with seqinfo.ini and img1/, at most two levels down",
            "Give the folder that holds the sequences; write a seqinfo.ini where one is missing.",
        )
    return [_read_sequence(folder, root) for folder in tqdm(sequences, desc="read", unit="clip", delay=1)]


def _read_sequence(folder: Path, root: Path) -> Clip:
    info_path = folder / "seqinfo.ini"
    info = _sequence_info(info_path)
    pictures = Path(info.get("imdir", "img1"))
    if pictures.is_absolute() or ".." in pictures.parts:
        raise ClipError(
            info_path, f"has imDir {pictures}", "a folder inside the sequence, such as img1", "Correct imDir."
        )
    images = _images(folder / pictures, info.get("imext", ".jpg"))
    claimed = _number(info_path, info, "seqLength")
    if claimed != len(images):
        raise ClipError(
            info_path,
            f"has seqLength {claimed:g} but {images[0].parent.name}/ holds {len(images)} pictures",
            "one picture per frame",
            "Copy the missing pictures, or correct seqLength.",
        )
    height, width, _ = read_image(images[0]).shape
    if (_number(info_path, info, "imWidth"), _number(info_path, info, "imHeight")) != (width, height):
        raise ClipError(
            info_path,
            f"has imWidth {info['imwidth']} and imHeight {info['imheight']}",
            f"{width} and {height}, the size of {images[0].name}",
            "Boxes belong to one picture size: copy the pictures that were labelled, or correct seqinfo.ini.",
        )
    truth = folder / "gt" / "gt.txt"
    return Clip(
        name=folder.name if folder == root else folder.relative_to(root).as_posix(),
        day=_day(info_path, info.get("day", folder.name)),
        fps=_number(info_path, info, "frameRate"),
        width=width,
        height=height,
        num_frames=len(images),
        source=ImageFiles(tuple(images)),
        annotations=_read_truth(truth, width, height, len(images)) if truth.is_file() else {},
    )


def _sequence_info(path: Path) -> dict[str, str]:
    """Read the keys of a sequence, in lower case: exporters write seqLength and seqlength."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
        return dict(parser["Sequence"])
    except (configparser.Error, KeyError, UnicodeDecodeError) as error:
        raise ClipError(
            path,
            f"cannot be read ({error})",
            "a [Sequence] section with key=value lines",
            "Write it as MOTChallenge does.",
        ) from error


def _number(path: Path, info: dict[str, str], key: str) -> float:
    try:
        value = float(info[key.lower()])
    except (KeyError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise ClipError(
            path, f"has {key} {info.get(key.lower(), 'missing')}", "a positive number", f"Write {key}=... there."
        )
    return value


def _images(folder: Path, extension: str) -> list[Path]:
    found = list(folder.iterdir()) if folder.is_dir() else []
    images = [path for path in found if path.name.endswith(extension) and not path.name.startswith(".")]  # ._1 of a Mac
    images.sort(key=lambda path: (int(path.stem) if path.stem.isdecimal() else math.inf, path.name))
    if not images:
        raise ClipError(folder, f"holds no *{extension}", "the sequence's pictures", "Check imDir and imExt.")
    for number, image in enumerate(images, 1):
        if not image.stem.isdecimal() or int(image.stem) != number:
            raise ClipError(
                image,
                f"is picture number {number} of its folder",
                f"a name such as {number:06d}{extension}",
                "Copy the missing pictures, or number them from 1 without gaps.",
            )
    return images


def _day(path: Path, text: str) -> str:
    for match in DATE.finditer(text):
        try:
            return date(*(int(part) for part in match.groups())).strftime("%Y_%m_%d")
        except ValueError:
            continue  # digits that are no date, such as a serial number
    raise ClipError(
        path,
        f"tells no recording day: {text!r} holds no date",
        "a day, by which clips are split",
        "Add the line day=2026_01_31, with the right day, to seqinfo.ini.",
    )


def _read_truth(path: Path, width: int, height: int, num_frames: int) -> dict[int, Annotation]:
    frames: list[dict[str, tuple[Box, bool]]] = [{} for _ in range(num_frames)]
    seen: set[tuple[int, str]] = set()
    fitter = BoxFitter(width, height)
    for number, row in _rows(path):
        where = f"{path}, line {number}"
        frame, identity, values = _parse(where, row, num_frames)
        left, top, box_width, box_height, consider, visibility = values
        if consider == 0:
            continue
        if (frame, identity) in seen:
            raise AnnotationError(
                where, f"gives animal {identity} a second box on frame {frame}", "one", "Remove one of the lines."
            )
        seen.add((frame, identity))
        if box_width <= 0 or box_height <= 0:
            raise AnnotationError(
                where,
                f"has a box of width {box_width:g} and height {box_height:g}",
                "a positive width and height",
                "Correct or remove this line.",
            )
        box = fitter.cut(left - 1, top - 1, box_width, box_height)
        if box is not None:
            frames[frame - 1][identity] = (box, visibility != 0)
    fitter.check(path)
    return {index: _annotation(animals) for index, animals in enumerate(frames)}


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Give number and fields of every line that is not empty; a comma at its end begins no field."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        try:
            for row in lines:
                if row and not row[-1].strip():
                    row.pop()
                if any(field.strip() for field in row):
                    yield lines.line_num, row
        except (UnicodeDecodeError, csv.Error) as error:
            raise AnnotationError(
                f"{path}, after line {lines.line_num}",
                f"cannot be read ({error})",
                "UTF-8 text, lines of numbers with commas between them",
                "Export this file again as plain text.",
            ) from error


def _parse(where: str, row: list[str], num_frames: int) -> tuple[int, str, tuple[float, ...]]:
    """Return frame (from 1), identity, and left, top, width, height, consider, visibility."""
    try:
        numbers = [float(value) for value in row]
    except ValueError:
        numbers = []
    if len(numbers) not in (9, 10) or not all(math.isfinite(value) for value in numbers):
        raise AnnotationError(
            where,
            f"reads {','.join(row)!r}",
            "9 or 10 numbers: frame,id,left,top,width,height,consider,class,visibility",
            "Correct this line.",
        )
    frame, identity = numbers[0], numbers[1]
    if frame != int(frame) or not 1 <= frame <= num_frames:
        raise AnnotationError(
            where,
            f"is about frame {row[0].strip()}",
            f"a whole number from 1 to {num_frames}, the sequence's frames",
            "Frames count from 1; check that gt.txt and pictures belong together.",
        )
    if identity != int(identity):
        raise AnnotationError(where, f"has id {row[1].strip()}", "a whole number", "Correct this line.")
    visibility = numbers[8] if len(numbers) == 9 else 1.0
    return int(frame), str(int(identity)), (*numbers[2:7], visibility)


def _annotation(animals: dict[str, tuple[Box, bool]]) -> Annotation:
    return Annotation(
        identities=tuple(animals),
        boxes_xyxy=np.array([box for box, _ in animals.values()], np.float32).reshape(-1, 4),
        behaviours=(None,) * len(animals),
        visible=np.array([visible for _, visible in animals.values()], bool),
    )
