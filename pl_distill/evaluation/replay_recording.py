"""Replay a clip and write what it gives: tracks, pictures, an annotated video, and at the end the record of it."""

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Any, Protocol

import torch

from datamodules.clip import Clip
from datamodules.files import atomic_path, sha256_of, write_json
from datamodules.images import encode_jpeg
from datamodules.video_writer import VideoWriter
from pl_distill.evaluation.chain import Chain
from pl_distill.evaluation.clip_files import RECORD_SCHEMA, ClipFiles, ReplayRecord
from pl_distill.evaluation.mask_files import write_masks
from pl_distill.evaluation.memory import STREAMING, PhaseMeter, peak_rss_bytes
from pl_distill.evaluation.pictures import Canvas, annotate
from pl_distill.evaluation.replay import Tracker, length, replay
from pl_distill.evaluation.track_files import write_frame

PICTURES_PER_CLIP = 4
_JPEG_QUALITY = 88
_VIDEO_CRF = 23


class Progress(Protocol):
    """Is told of every frame; tqdm is one."""

    def update(self) -> object:
        """One more frame is done."""


def picture_frames(clip: Clip, frames: int) -> list[int]:
    """Choose the frames to keep pictures of: spread over the clip, labelled ones where there are any."""
    labelled = [index for index in sorted(clip.annotations) if index < frames]
    candidates = labelled or list(range(frames))
    count = min(PICTURES_PER_CLIP, len(candidates))
    return [candidates[(2 * number + 1) * len(candidates) // (2 * count)] for number in range(count)]


def record_clip(
    clip: Clip,
    tracker: Tracker,
    files: ClipFiles,
    identity: Mapping[str, Any],
    *,
    video: bool,
    max_frames: int | None,
    progress: Progress,
    chain: Chain | None = None,
    device: torch.device = torch.device("cpu"),  # noqa: B008  # a device does not change
) -> ReplayRecord:
    """Replay a clip and write its files; on an error none of them appears.

    Args:
        clip: What to replay.
        tracker: What to replay it through.
        files: Where to write; older files are replaced.
        identity: Goes into the record.
        video: Whether to write the annotated mp4.
        max_frames: Only the first so many frames.
        progress: Is told of every frame.
        chain: Describes what is tracked; None describes nothing.
        device: Where the tracker runs.
    """
    files.record.unlink(missing_ok=True)  # from now on this clip is not finished
    files.video.unlink(missing_ok=True)  # of other tracks; nothing would tell
    canvas = Canvas.of(clip.width, clip.height)
    chosen = picture_frames(clip, length(clip, max_frames))
    update_ms: list[float] = []
    memory: list[int | None] = []
    session: list[int] = []
    objects: list[int] = []
    animals: list[int | None] = []
    started = time.perf_counter()
    meter = PhaseMeter()
    meter.enter(STREAMING, device)
    with ExitStack() as stack:
        text_path = stack.enter_context(atomic_path(files.tracks))
        text = stack.enter_context(text_path.open("w", encoding="utf-8"))
        masks_path = stack.enter_context(atomic_path(files.masks))
        masks_text = stack.enter_context(masks_path.open("w", encoding="ascii"))
        writer = None
        if video:
            size = {"width": canvas.width, "height": canvas.height}
            writer = stack.enter_context(VideoWriter(files.video, fps=clip.fps, crf=_VIDEO_CRF, **size))
        monitor = None
        if chain is not None:
            monitor = stack.enter_context(closing(chain.monitor(stack.enter_context(atomic_path(files.animals)))))
        for replayed in replay(clip, tracker, max_frames):
            frame, tracks = replayed.frame, replayed.tracks
            write_frame(text, frame.index, tracks)
            write_masks(masks_text, frame.index, tracks.ids, tracks.masks)
            if monitor is not None:
                monitor.update(frame.image, tracks, frame.index, frame.timestamp_s)
            if writer is not None or frame.index in chosen:
                caption = f"{files.role}  {clip.name}  frame {frame.index}"
                picture = annotate(frame.image, tracks, frame.annotation, canvas, caption)
                if writer is not None:
                    writer.write(picture)
                if frame.index in chosen:
                    with atomic_path(files.picture(frame.index)) as temporary:
                        temporary.write_bytes(encode_jpeg(picture, _JPEG_QUALITY))
            update_ms.append(round(1000 * replayed.seconds, 3))
            memory.append(replayed.rss_bytes)
            session.append(replayed.session_bytes)
            objects.append(len(tracks.ids))
            animals.append(None if frame.annotation is None else int(frame.annotation.visible.sum()))
            progress.update()
    meter.note(device)
    peaks = meter.peaks_bytes[STREAMING]
    record = ReplayRecord(
        identity=dict(identity),
        seconds=round(time.perf_counter() - started, 3),
        peak_rss_bytes=peaks["rss"] if "rss" in peaks else peak_rss_bytes(),
        peak_vram_bytes=peaks.get("allocated"),
        update_ms=update_ms,
        rss_bytes=memory,
        session_bytes=session,
        objects=objects,
        animals=animals,
        pictures=[frame for frame in chosen if frame < len(objects)],
        tracks_sha256=sha256_of(files.tracks),
        masks_sha256=sha256_of(files.masks),
        animals_sha256=None if chain is None else sha256_of(files.animals),
        streaming_bytes=peaks,
    )
    write_json(files.record, {"schema": RECORD_SCHEMA, **asdict(record)})
    return record
