"""Give an embedder every animal of some clips: from the boxes of truth, or from the tracks of an evaluation."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.animal_features import MANIFEST, AnimalFeatures, write_features, write_manifest
from datamodules.clip import Annotation, Clip, Frame
from datamodules.edinburgh_output import BEHAVIOURS
from datamodules.errors import AnnotationError
from datamodules.lies import LIE
from datamodules.masks import decode_masks
from pl_distill.evaluation.boxes import iou_matrix
from pl_distill.evaluation.clip_files import ClipFiles
from pl_distill.evaluation.mask_files import read_masks
from pl_distill.evaluation.pairing import match
from pl_distill.evaluation.track_files import read_tracks
from pl_distill.models.embedder import Embedder


@dataclass(frozen=True, eq=False)
class Animals:
    """Who is to be described in one frame: N animals.

    Args:
        names: One each.
        boxes_xyxy: Shape (N, 4), pixels.
        behaviours: Raw label of each, None where unknown.
        masks: Shape (N, H, W), or None.
    """

    names: tuple[str, ...]
    boxes_xyxy: NDArray[np.float32]
    behaviours: tuple[str | None, ...]
    masks: NDArray[np.bool_] | None


Finder = Callable[[Frame], Animals | None]
"""Says who is in a frame; None where nobody knows."""


def animals_of_truth(frame: Frame) -> Animals | None:
    """Give the visible animals of a labelled frame."""
    truth = frame.annotation
    if truth is None:
        return None
    rows = [row for row in range(len(truth)) if truth.visible[row]]
    masks = None
    if truth.masks is not None and rows:
        masks = decode_masks([truth.masks[row] for row in rows])
    return Animals(
        tuple(truth.identities[row] for row in rows),
        truth.boxes_xyxy[rows],
        tuple(truth.behaviours[row] for row in rows),
        masks,
    )


def labelled_moments(annotations: Collection[int], num_frames: int) -> Collection[int]:
    """Give the frames at the rate of a clip's labels, those without a label among them; all of a clip without any.

    A head takes its windows from them: between two frames of the truth lies as much time as between two of the tracks.

    Args:
        annotations: Numbers of the labelled frames.
        num_frames: Of the clip.
    """
    if len(annotations) < 2:
        return range(num_frames)
    labelled = np.array(sorted(annotations))
    step = int(np.bincount(np.diff(labelled)).argmax())
    even = np.arange(int(labelled[0]) % step, num_frames, step)
    # Where the rate is not quite that of its steps, labels slip: beside each of them there is no second moment.
    near = np.searchsorted(labelled, even - step / 2, side="right") < np.searchsorted(labelled, even + step / 2)
    return {*annotations, *even[~near].tolist()}


def animals_of_tracks(files: ClipFiles, moments: Collection[int]) -> Finder:
    """Give the tracks of an evaluation, each with the behaviour of the animal that it covers.

    Args:
        files: Where the evaluation has what it found in the clip.
        moments: The frames to look at; in others nobody is known.

    Raises:
        AnnotationError: The evaluation has no tracks of the clip, or its masks are of other tracks.
    """
    if not files.tracks.is_file() or not files.masks.is_file():
        raise AnnotationError(files.tracks, "is not there", "tracks of this clip", "Evaluate the same clips first.")
    tracks, all_masks = read_tracks(files.tracks), read_masks(files.masks)

    def find(frame: Frame) -> Animals | None:
        found = tracks.get(frame.index)
        if found is None or frame.index not in moments:
            return None
        masks = all_masks.get(frame.index, [])
        if len(masks) != len(found.ids):
            raise AnnotationError(
                files.masks,
                f"has {len(masks)} masks in frame {frame.index}",
                f"{len(found.ids)} as {files.tracks.name}",
                "Evaluate the clip again.",
            )
        names = tuple(map(str, found.ids))
        return Animals(names, found.boxes_xyxy, _labels(frame.annotation, found.boxes_xyxy), decode_masks(masks))

    return find


def _labels(truth: Annotation | None, boxes_xyxy: NDArray[np.float32]) -> tuple[str | None, ...]:
    labels: list[str | None] = [None] * len(boxes_xyxy)
    if truth is not None:
        visible = np.flatnonzero(truth.visible)  # as scores are counted: hidden animals take no track from them
        for row, column in match(iou_matrix(truth.boxes_xyxy[visible], boxes_xyxy)):
            labels[column] = truth.behaviours[visible[row]]
    return tuple(labels)


def describe_clip(
    clip: Clip,
    embedder: Embedder,
    find: Finder,
    *,
    max_frames: int | None = None,
    progress: Callable[[], object] | None = None,
) -> AnimalFeatures:
    """Describe the animals of a clip, frame by frame; those that cannot be cut out are left out.

    Args:
        clip: What to describe.
        embedder: Gives the features.
        find: Says who is in a frame.
        max_frames: Only the first so many frames.
        progress: Is called after every frame.
    """
    frames: list[int] = []
    names: list[str] = []
    boxes: list[NDArray[np.float32]] = []
    lies: list[NDArray[np.float32]] = []
    labels: list[int] = []
    features: list[NDArray[np.float16]] = []
    for frame in islice(clip.frames(), max_frames):
        animals = find(frame)
        if animals is not None and animals.names:
            seen = embedder.describe_animals(frame.image, animals.boxes_xyxy, animals.masks)
            frames += [frame.index] * len(seen.rows)
            names += [animals.names[row] for row in seen.rows]
            boxes.append(animals.boxes_xyxy[seen.rows])
            lies.append(seen.lies)
            labels += [-1 if (one := animals.behaviours[row]) is None else BEHAVIOURS.index(one) for row in seen.rows]
            features.append(seen.features.cpu().numpy().astype(np.float16))
        if progress is not None:
            progress()
    known = tuple(sorted(set(names)))
    numbers = {name: number for number, name in enumerate(known)}
    animal, frame_number = np.array([numbers[name] for name in names], np.int32), np.array(frames, np.int32)
    order = np.lexsort((frame_number, animal))
    size = embedder.feature_dimension
    return AnimalFeatures(
        clip.name,
        clip.day,
        clip.fps,
        clip.width,
        clip.height,
        known,
        frame_number[order],
        animal[order],
        np.concatenate([*boxes, np.zeros((0, 4), np.float32)])[order],
        np.concatenate([*lies, np.zeros((0, len(LIE)), np.float32)])[order],
        np.array(labels, np.int16)[order],
        np.concatenate([*features, np.zeros((0, size), np.float16)])[order],
    )


def describe_clips(
    clips: Iterator[Clip] | list[Clip],
    embedder: Embedder,
    source: str,
    out: Path,
    *,
    tracks: Path | None = None,
    role: str = "student",
    max_frames: int | None = None,
    progress: Callable[[], object] | None = None,
) -> int:
    """Describe clips into a folder, and return how many rows it holds; the manifest is written last.

    Older features in the folder stay until the first clip is described.

    Args:
        clips: What to describe.
        embedder: Gives the features.
        source: What the embedder is called.
        out: The folder.
        tracks: Folder of `pl-distill evaluate`, whose tracks stand for truth, at the rate of its labels; None takes the
            truth.
        role: Of the model whose tracks these are.
        max_frames: Only the first so many frames of each.
        progress: Is called after every frame.
    """
    entries = {}
    for clip in clips:
        find: Finder = animals_of_truth
        if tracks is not None:
            moments = labelled_moments(clip.annotations.keys(), clip.num_frames)
            find = animals_of_tracks(ClipFiles(tracks, role, clip.name), moments)
        described = describe_clip(clip, embedder, find, max_frames=max_frames, progress=progress)
        (out / MANIFEST).unlink(missing_ok=True)  # from here on older features are gone
        entries[clip.name] = write_features(out, described)
    header = {
        "embedder": {
            "source": source,
            "identity": embedder.identity,
            "dimension": embedder.dimension,
            "features": embedder.feature_dimension,
        },
        "boxes": "truth" if tracks is None else "tracks",
    }
    write_manifest(out, header, entries)
    return sum(int(entry["rows"]) for entry in entries.values())
