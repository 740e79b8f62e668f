"""Score predicted behaviours twice: with boxes of the annotations, and with boxes from a model's tracks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from datamodules.clip import Annotation, Clip
from pl_distill.evaluation.behaviour_results import BehaviourResult, ClassScores, NamedFrames
from pl_distill.evaluation.behaviour_scores import score_behaviours
from pl_distill.evaluation.boxes import iou_matrix
from pl_distill.evaluation.chain import TRUTH, numbers_of
from pl_distill.evaluation.clip_files import ClipFiles
from pl_distill.evaluation.pairing import match
from pl_distill.models.behaviour_head import BehaviourModel


class Said(NamedTuple):
    """What the chain says of the animals of one frame; N of them.

    Args:
        numbers: Of the tracks.
        boxes_xyxy: Shape (N, 4), pixels.
        behaviours: Class of each.
    """

    numbers: tuple[int, ...]
    boxes_xyxy: NDArray[np.float32]
    behaviours: tuple[str, ...]


class Named(NamedTuple):
    """One animal in one frame: its class, what is said of it from the truth, and from a track, None without one."""

    true: str
    from_truth: str
    from_tracks: str | None


def score_chain(role: str, clips: Sequence[Clip], out: Path, head: BehaviourModel) -> BehaviourResult:
    """Score one model's chain.

    Args:
        role: Of the model.
        clips: What was replayed.
        out: Folder of the evaluation.
        head: Whose classes and labels count.
    """
    found: list[Named] = []
    for clip in clips:
        truth, tracks = (read_said(ClipFiles(out, which, clip.name).animals) for which in (TRUTH, role))
        found += name_animals(clip.annotations, numbers_of(clip), truth, tracks, head)
    return summarise(found, head.classes)


def summarise(found: Sequence[Named], classes: tuple[str, ...]) -> BehaviourResult:
    """Score animal-frames, all and those that a track covers."""
    covered = [one for one in found if one.from_tracks is not None]
    truth = judge(classes, [one.true for one in found], [one.from_truth for one in found])
    covered_truth = judge(classes, [one.true for one in covered], [one.from_truth for one in covered])
    tracks = judge(classes, [one.true for one in covered], [str(one.from_tracks) for one in covered])
    right = sum(one.true == one.from_tracks for one in covered)
    return BehaviourResult(
        truth,
        covered_truth,
        tracks,
        covered=round(100 * len(covered) / len(found), 4) if found else None,
        right_of_all=round(100 * right / len(found), 4) if found else None,
        top1_drop=_drop(covered_truth.top1, tracks.top1),
        macro_f1_drop=_drop(covered_truth.macro_f1, tracks.macro_f1),
    )


def judge(classes: tuple[str, ...], true: list[str], said: list[str]) -> NamedFrames:
    """Score what was said of animal-frames.

    Args:
        classes: Of the head.
        true: Class of each animal-frame.
        said: What the chain called it.
    """
    if not true:
        return NamedFrames(0, None, None)
    number = {name: index for index, name in enumerate(classes)}
    targets = torch.tensor([number[name] for name in true])
    answers = F.one_hot(torch.tensor([number[name] for name in said]), len(classes)).float()
    scores = score_behaviours(answers, targets, classes)
    rows = zip(classes, scores.support, scores.precision, scores.recall, scores.f1, strict=True)
    return NamedFrames(
        scores.windows,
        round(scores.top1, 4),
        round(scores.macro_f1, 4),
        {name: ClassScores(n, round(p, 4), round(r, 4), round(f, 4)) for name, n, p, r, f in rows},
        [list(row) for row in scores.confusion],
    )


def name_animals(
    annotations: Mapping[int, Annotation],
    numbers: Mapping[str, int],
    truth: Mapping[int, Said],
    tracks: Mapping[int, Said],
    head: BehaviourModel,
) -> list[Named]:
    """Lay beside each other what is true, what is said from the truth, and what is said from tracks.

    An animal counts in a frame if it is visible, its label has a class, and the chain described it from the truth. A
    track answers for the animal with which it overlaps, one to one, by at least half.

    Args:
        annotations: By frame; only frames of `truth` are judged.
        numbers: Animal -> its number in `truth`.
        truth: By frame, what the chain says behind the truth.
        tracks: By frame, what it says behind a tracker.
        head: Whose labels count.
    """
    found = []
    for index in sorted(annotations.keys() & truth.keys()):
        annotation, of_truth = annotations[index], truth[index]
        said = dict(zip(of_truth.numbers, of_truth.behaviours, strict=True))
        of_tracks = tracks.get(index)
        visible = np.flatnonzero(annotation.visible)
        serving: dict[int, str] = {}
        if of_tracks is not None:
            pairs = match(iou_matrix(annotation.boxes_xyxy[visible], of_tracks.boxes_xyxy))
            serving = {int(visible[row]): of_tracks.behaviours[column] for row, column in pairs}
        for row in visible.tolist():
            raw, number = annotation.behaviours[row], numbers[annotation.identities[row]]
            true = None if raw is None else head.class_of(raw)
            if true is not None and number in said:
                found.append(Named(true, said[number], serving.get(row)))
    return found


def read_said(path: Path) -> dict[int, Said]:
    """Read lines of `AnimalLines` by frame, counted from 0."""
    rows: dict[int, list[tuple[int, list[float], str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        rows.setdefault(int(one["image_id"]) - 1, []).append((one["track_id"], one["bbox"], one["behaviour"]))
    said = {}
    for frame, animals in rows.items():
        numbers, boxes, behaviours = zip(*animals, strict=True)
        table = np.array(boxes, np.float32)
        table[:, 2:] += table[:, :2]
        said[frame] = Said(numbers, table, behaviours)
    return said


def _drop(truth: float | None, tracks: float | None) -> float | None:
    return None if truth is None or tracks is None else round(truth - tracks, 4)
