"""From tracks on disk to scores: one model against truth, or a student against its teacher's tracks.

Everything is read back from the text files, so that tracks of an earlier run and of this one are scored alike.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from datamodules.clip import Clip
from pl_distill.evaluation.clip_files import ClipFiles, ReplayRecord
from pl_distill.evaluation.failure_strips import write_strips
from pl_distill.evaluation.failures import Failure, find_failures, write_failures
from pl_distill.evaluation.mask_files import (
    MaskOverlap,
    masks_of_truth,
    measure_overlap,
    read_masks,
    read_masks_by_track,
)
from pl_distill.evaluation.memory import STREAMING
from pl_distill.evaluation.models import STUDENT, TEACHER
from pl_distill.evaluation.mot import TrackingCounts, count_clip
from pl_distill.evaluation.pairing import FramePair, pair_with_annotations, pair_with_tracks
from pl_distill.evaluation.results import ClipReplay, ClipResult, Comparison, ModelIdentity, ModelResult
from pl_distill.evaluation.track_files import read_tracks


def score_model(
    role: str,
    identity: ModelIdentity,
    clips: Sequence[Clip],
    records: Mapping[str, ReplayRecord],
    out: Path,
    video: bool,
) -> ModelResult:
    """Score the replays of one model against truth.

    Args:
        role: ``model``, ``teacher`` or ``student``.
        identity: Which network it is.
        clips: What was replayed.
        records: Of the replays, by clip.
        out: Folder of the evaluation.
        video: Whether annotated videos were asked for.
    """
    areas: list[NDArray[np.float32]] = []  # of each box, as a part of the picture

    def against_truth(clip: Clip) -> list[FramePair]:
        tracks = read_tracks(ClipFiles(out, role, clip.name).tracks)
        for boxes in tracks.values():
            sides = boxes.boxes_xyxy[:, 2:] - boxes.boxes_xyxy[:, :2]
            areas.append(sides.prod(axis=1) / (clip.width * clip.height))
        return pair_with_annotations(clip.annotations, tracks, len(records[clip.name].objects))

    counts = _count(clips, against_truth)
    tracker_seconds = sum(sum(record.update_ms) for record in records.values()) / 1000
    frames = sum(len(record.objects) for record in records.values())
    streaming = _largest([record.streaming_bytes for record in records.values()])
    vram = [record.peak_vram_bytes for record in records.values() if record.peak_vram_bytes is not None]
    overlap = sum((_truth_overlap(role, clip, len(records[clip.name].objects), out) for clip in clips), MaskOverlap())
    return ModelResult(
        overall=sum(counts.values(), TrackingCounts()).scores(),
        clips={
            clip.name: ClipResult(
                counts[clip.name].scores(), _describe(ClipFiles(out, role, clip.name), clip, records[clip.name], video)
            )
            for clip in clips
        },
        model=identity,
        frames_per_second=round(frames / tracker_seconds, 3) if tracker_seconds > 0 else None,
        seconds=round(sum(record.seconds for record in records.values()), 2),
        peak_rss_bytes=max(record.peak_rss_bytes for record in records.values()),
        peak_vram_bytes=max(vram) if vram else None,
        mask_overlap=overlap.percentage,
        matched_mask_overlap=overlap.matched_percentage,
        session_bytes=max((max(record.session_bytes, default=0) for record in records.values()), default=None),
        large_boxes=round(100 * float((np.concatenate(areas) > 0.5).mean()), 2) if areas else None,
        memory={STREAMING: streaming} if streaming else {},
    )


def _largest(found: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(name for one in found for name in one)
    return {name: max(one.get(name, 0) for one in found) for name in names}


def _truth_overlap(role: str, clip: Clip, frames: int, out: Path) -> MaskOverlap:
    truth = masks_of_truth(clip.annotations, frames)
    return measure_overlap(truth, read_masks(ClipFiles(out, role, clip.name).masks), truth) if truth else MaskOverlap()


def _describe(files: ClipFiles, clip: Clip, record: ReplayRecord, video: bool) -> ClipReplay:
    def relative(path: Path) -> str:
        return path.relative_to(files.folder).as_posix()

    speed = record.frames_per_second
    return ClipReplay(
        day=clip.day,
        frames=len(record.objects),
        frames_per_second=None if speed is None else round(speed, 3),
        seconds=record.seconds,
        peak_rss_bytes=record.peak_rss_bytes,
        peak_vram_bytes=record.peak_vram_bytes,
        tracks=relative(files.tracks),
        masks=relative(files.masks),
        record=relative(files.record),
        pictures={str(frame): relative(files.picture(frame)) for frame in record.pictures},
        video=relative(files.video) if video else None,
        session_bytes=max(record.session_bytes, default=None),
    )


def explain_model(
    role: str, clips: Sequence[Clip], records: Mapping[str, ReplayRecord], out: Path, strips: bool
) -> str:
    """Write every error of one model against truth into ``failures/<role>.json`` and return that path.

    Strips that an earlier evaluation left, and this one does not name, are removed.

    Args:
        role: Of the model.
        clips: What was replayed.
        records: Of the replays, by clip.
        out: Folder of the evaluation, to which the path is relative.
        strips: Whether to draw strips of pictures.
    """
    found: list[Failure] = []
    for clip in tqdm(clips, desc=f"{role}: errors", unit="clip", leave=False):
        files, frames = ClipFiles(out, role, clip.name), len(records[clip.name].objects)
        tracks = read_tracks(files.tracks)
        failures = find_failures(clip, tracks, frames)
        if strips:
            masks = read_masks_by_track(files.masks)
            failures = write_strips(clip, failures, tracks, masks, frames, out, files.strips)
        found += failures
    path = out / "failures" / f"{role}.json"
    write_failures(path, found)
    linked = {out / failure.strip for failure in found if failure.strip is not None}
    for strip in ClipFiles(out, role, "").strips.glob("*.jpg"):  # of an earlier evaluation, of other errors
        if strip not in linked:
            strip.unlink()
    return path.relative_to(out).as_posix()


def score_against_teacher(clips: Sequence[Clip], frames: Mapping[str, int], out: Path) -> Comparison:
    """Score the student's tracks with the teacher's as truth, in every frame, labelled or not.

    Args:
        clips: What both replayed.
        frames: How many frames of each clip.
        out: Folder of the evaluation.
    """

    def against_teacher(clip: Clip) -> list[FramePair]:
        reference, tracks = (read_tracks(ClipFiles(out, role, clip.name).tracks) for role in (TEACHER, STUDENT))
        return pair_with_tracks(reference, tracks, frames[clip.name])

    def masks_against_teacher(clip: Clip) -> MaskOverlap:
        reference, masks = (read_masks(ClipFiles(out, role, clip.name).masks) for role in (TEACHER, STUDENT))
        return measure_overlap(reference, masks, range(frames[clip.name]))

    counts = _count(clips, against_teacher)
    overlap = sum(map(masks_against_teacher, clips), MaskOverlap())
    return Comparison(
        overall=sum(counts.values(), TrackingCounts()).scores(),
        clips={name: ClipResult(count.scores()) for name, count in counts.items()},
        mask_overlap=overlap.percentage,
        matched_mask_overlap=overlap.matched_percentage,
    )


def _count(clips: Sequence[Clip], pair: Callable[[Clip], list[FramePair]]) -> dict[str, TrackingCounts]:
    return {clip.name: count_clip(pair(clip)) for clip in clips}
